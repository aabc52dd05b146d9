"""The command line. Thin: each module turns arguments into calls of the library."""
