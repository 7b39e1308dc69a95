"""Every error that `dsage_spool` raises, told apart by whose fault it is, with its exit status.

    SpoolError                          exit
    ├── UsageError                      2    the call is wrong: change it
    │   └── UnknownJob                  4    no job, or several, go by that name
    ├── Unreachable                     75   the network or the host is away: try later
    ├── Refused                         77   a key, a host key, a roster or a permission says no
    │   ├── BadSignature                77   these bytes are not signed by whom they should be
    │   └── Denied                      77   the operating system refuses access
    ├── BadFormat                       65   a file is not what its name says
    │   └── BadVersion                  76   written by a release this one does not know
    ├── DiskError                       74   the file system failed
    │   └── NoSpace                     73   the disk or a quota is full
    ├── FileAnswer                      70   ordinary answers of a file system; caught by the caller
    │   ├── Gone                             somebody else moved it, or it never was
    │   ├── Exists                           somebody else was first
    │   ├── TooBig                           larger than the caller is willing to read
    │   ├── NotRegular                       a link, a folder, a pipe or a device
    │   └── Torn                             read while it was being written; read it again
    ├── Busy                            69   another process has this spool or this worker
    └── JobError                             what became of a job
        ├── JobFailed                   1    it ran and failed; carries the remote traceback
        ├── JobCancelled                3    a person withdrew it
        ├── JobRejected                 5    the server refused it
        └── WaitTimeout                 124  it has not ended yet

Messages follow one form: lower case, no full stop, the thing first, what happened, and on a line of
its own `hint:` with what to do next.
"""

from __future__ import annotations


class SpoolError(Exception):
    """Root of all errors of this package. `hint` says what to do next; it may be empty."""

    exit_status = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self):
        return type(self), (self.message, self.hint)


class UsageError(SpoolError):
    exit_status = 2


class UnknownJob(UsageError):
    exit_status = 4


class Unreachable(SpoolError):
    exit_status = 75


class Refused(SpoolError):
    exit_status = 77


class BadSignature(Refused):
    pass


class Denied(Refused):
    pass


class BadFormat(SpoolError):
    exit_status = 65


class BadVersion(BadFormat):
    exit_status = 76


class DiskError(SpoolError):
    exit_status = 74


class NoSpace(DiskError):
    exit_status = 73


class FileAnswer(SpoolError):
    exit_status = 70


class Gone(FileAnswer):
    pass


class Exists(FileAnswer):
    pass


class TooBig(FileAnswer):
    pass


class NotRegular(FileAnswer):
    pass


class Torn(FileAnswer):
    pass


class Busy(SpoolError):
    exit_status = 69


class JobError(SpoolError):
    pass


class JobFailed(JobError):
    """The job ran and failed. `traceback` is the remote text, empty where there is none."""

    exit_status = 1

    def __init__(self, message: str, hint: str = "", traceback: str = "") -> None:
        super().__init__(message, hint)
        self.traceback = traceback

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\n{self.traceback}" if self.traceback else text

    def __reduce__(self):
        return type(self), (self.message, self.hint, self.traceback)


class JobCancelled(JobError):
    exit_status = 3


class JobRejected(JobError):
    exit_status = 5


class WaitTimeout(JobError, TimeoutError):
    exit_status = 124
