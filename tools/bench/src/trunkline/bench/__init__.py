"""Load as a carrier makes it, and what the platform pays for it.

`talk` is one caller as a pure machine; `lines` gives many of them sockets and time, in a process of its own; `platform`
reads what the services cost meanwhile; `__main__` puts both together and tells.
"""
