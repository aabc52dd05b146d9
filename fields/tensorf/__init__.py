"""TensoRF: tensorial radiance fields (Chen et al., ECCV 2022), VM and CP.

`config.py` holds the settings, `field.py` the field and its rendering, `training.py` the schedule of the paper.
"""
