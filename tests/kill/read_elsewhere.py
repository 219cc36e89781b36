"""`python -m tests.kill.read_elsewhere ...` is `batchrun ...`, and with workers a process reads any input.

Otherwise only inputs of 20,000 rows and more are read by a process of their own.
"""

from batchrun.cli import main
from batchrun.workers import reader

if __name__ == "__main__":
    vars(reader)["LEAST_ROWS"] = 1
    main()
