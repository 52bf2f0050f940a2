"""WebSocket close codes: RFC 6455, section 7.4.1, and for 1012 the registry that it founds (IANA)."""

from typing import Final

NORMAL: Final = 1000
UNSUPPORTED_DATA: Final = 1003
ABNORMAL: Final = 1006
"""Never sent: there was no closing handshake."""
INVALID_PAYLOAD: Final = 1007
POLICY_VIOLATION: Final = 1008
MESSAGE_TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
