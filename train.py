"""Train a GAN: accelerate launch train.py [--recipe NAME] [--data FOLDER] …; see --help."""

import sys

from gan.cli import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
