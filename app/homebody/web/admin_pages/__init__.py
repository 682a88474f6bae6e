"""The pages for administrators, below /_homebody/admin/.

Each module has the pages of one topic. What they do is done by the functions of core/ that the
admin API and the command line call as well, which note it in the audit log. Actions that can't be
taken back ask on a page of their own first. The pages need no script.
"""

from typing import Final

PREFIX: Final = "/_homebody/admin"
