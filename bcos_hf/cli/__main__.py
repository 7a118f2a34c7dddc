"""python -m bcos_hf.cli"""

from . import main


main()
