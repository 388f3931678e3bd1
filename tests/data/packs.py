"""Having images packed: in this process, or by a command in another."""

from pathlib import Path

from gan.config import Config, DataOptions

PACK = """
import sys; from pathlib import Path; from gan.config import *; from gan.data.pack import open_pack
options = DataOptions(cache=Path(sys.argv[2]), workers=2)
pack = open_pack(Config(data=sys.argv[1], resolution=int(sys.argv[3]), data_options=options))
print('content', pack.content, pack.folder)
"""


def config_for(images: Path, cache: Path, **options: object) -> Config:
    return Config(data=str(images), resolution=16, data_options=DataOptions(cache=cache, **options))  # type: ignore[arg-type]
