"""Train a GAN: accelerate launch train.py [--recipe NAME] [--data FOLDER] …; see --help."""

import sys

from gan.orphans import end_with_launcher

end_with_launcher()  # before the seconds that the other imports take

from gan.cli import train  # noqa: E402

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
