"""`python -m tests.kill.soon_indexed ...` is `batchrun ...` with an index by digest that is caught up often.

That is after 40 attempts and in parts of 100. Otherwise a journal of 100,000 attempts is indexed at the end
of its run only, and one of 500,000 in one part.
"""

from batchrun.cli import main
from batchrun.journal import writer
from batchrun.journal.commits import Commits

if __name__ == "__main__":
    vars(writer)["MOST_UNINDEXED"] = 40
    Commits.index_digests.__defaults__ = (1, 100)
    main()
