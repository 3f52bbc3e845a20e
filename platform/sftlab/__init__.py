"""sftlab: what supervised fine-tuning does to what a language model knows, and how to undo the harm."""

import os
import sys

__version__ = "0.1.0"

# Folders of users' own strategies, as the driver hands them to every process that it starts: an edit is unpickled
# there. They come last, so that a module of the same name is never taken in place of another.
PLUGIN_PATH = "SFTLAB_PLUGIN_PATH"
sys.path.extend(folder for folder in os.environ.get(PLUGIN_PATH, "").split(os.pathsep) if folder)
