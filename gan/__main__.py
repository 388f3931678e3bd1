"""`python -m gan …` and `accelerate launch -m gan …`: the `gan` command."""

import sys

from gan.cli import main

if __name__ == "__main__":
    sys.exit(main())
