"""Looking at fields in a browser: viser draws the window and its controls, we draw the picture behind them.

stage.py      who is drawn for next: one tile at a time, so that nobody waits long and nothing needs a lock
frames.py     one picture: tiles, values to colours, comparisons
session.py    one browser: coarse while its camera moves, finer and finer while it rests
serving.py    the server, where it was told to listen
viewer.py     the controls that every run has
journey.py    camera paths: key frames, preview, films
panels.py     tabs of what only some runs have; of light (light.py) and of joints (joints.py)
fragments.py  no field: fragments of a broken object as meshes, which viser draws itself
materials.py  no field: materials, what is seen of them (wall.py), and a model that draws more (drawing.py)
"""
