"""Parts found by name: ours are imported when first asked for, others come as installed entry points.

A distribution adds a part with, for example::

    [project.entry-points."trunkline.stt_providers"]
    acme = "acme_ears.trunkline:AcmeProvider"

What is found is called with the process's environment and makes the part. A name of ours cannot be taken over. This
module does not know what the parts do.

PluginError
├── NoPlugin        there is none of that name, here or, most likely, anywhere
└── PluginBroken    it is installed but cannot be made in this process
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Generic, Protocol, TypeVar, cast

LOAD_S: Final = 30.0
"""How long it may take to import and make a part. One that hangs must not keep the process from its calls."""


class PluginError(Exception):
    """A part that was asked for cannot be had."""


class NoPlugin(PluginError):
    """There is no part of that name."""


class PluginBroken(PluginError):
    """The part cannot be loaded or made."""


class Plugin(Protocol):
    """What every part can do."""

    async def aclose(self) -> None:
        """Give back what the process held for it."""
        ...


class Found(Protocol):
    """An `EntryPoint`, or what looks like one."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""
        ...

    def load(self) -> object:
        """Import what makes the part."""
        ...


P = TypeVar("P", bound=Plugin)


class Plugins(Generic[P]):
    """The parts of one kind in one process, each made once and kept.

    Args:
        setting: what names a part, for errors: ``stt.provider``.
        group: entry point group of the parts that others install.
        ours: name → ``module:attribute``.
        environ: what parts read their settings from.
        installed: parts to offer instead of the installed ones.
    """

    def __init__(
        self,
        setting: str,
        group: str,
        ours: Mapping[str, str],
        environ: Mapping[str, str],
        installed: Iterable[Found] | None = None,
    ) -> None:
        self._setting = setting
        self._environ = environ
        others = entry_points(group=group) if installed is None else installed
        self._found: dict[str, Found] = {point.name: point for point in others}
        self._found |= {name: EntryPoint(name, where, group) for name, where in ours.items()}
        self._made: dict[str, P] = {}
        self._loading: dict[str, asyncio.Task[P]] = {}

    def names(self) -> list[str]:
        """Return what can be asked for."""
        return sorted(self._found)

    def get(self, name: str) -> P:
        """Return the part called `name`, made if need be.

        Raises:
            NoPlugin: there is none of that name.
            PluginBroken: it cannot be imported, or refuses to be made.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    async def load(self, name: str) -> P:
        """Return what `get` returns; the part is imported in a thread, which may take seconds.

        Raises:
            NoPlugin: there is none of that name.
            PluginBroken: it cannot be imported or made, or not within `LOAD_S`.
        """
        if name in self._made:
            return self._made[name]
        loading = self._loading.get(name)
        if loading is None:
            loading = self._loading[name] = asyncio.create_task(self._load(name), name=f"load {name}")
            loading.add_done_callback(lambda task: self._loaded(name, task))
        return await asyncio.shield(loading)

    async def aclose(self) -> None:
        """Close every part that was made."""
        for loading in self._loading.values():
            loading.cancel()
        while self._made:
            _, made = self._made.popitem()
            await made.aclose()

    def _make(self, name: str) -> P:
        if name not in self._found:
            choice = ", ".join(self.names())
            raise NoPlugin(f"{self._setting}: no provider {name!r} here; expected one of {choice}")
        try:
            return self._call(self._found[name].load())
        except Exception as error:
            raise self._broken(name, error) from error

    async def _load(self, name: str) -> P:
        """Import in a thread; make on the loop, where parts may make what belongs to it."""
        if name not in self._found:
            return self._make(name)
        loop = asyncio.get_running_loop()
        imported: asyncio.Future[object] = loop.create_future()

        def settle(found: object, error: BaseException | None) -> None:
            if imported.done():
                return
            if error is None:
                imported.set_result(found)
            else:
                imported.set_exception(self._broken(name, error))

        def work() -> None:
            found: object = None
            failure: BaseException | None = None
            try:
                found = self._found[name].load()
            except BaseException as error:  # noqa: BLE001 - some modules want to end the process; not this one
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found, failure)

        # A daemon: an import that never returns must not keep the process from ending.
        threading.Thread(target=work, name=f"load {name}", daemon=True).start()
        try:
            async with asyncio.timeout(LOAD_S):
                make = await imported
        except TimeoutError as error:
            raise PluginBroken(f"{self._setting}: {name!r} is not there after {LOAD_S:g} s") from error
        if name not in self._made:
            try:
                self._made[name] = self._call(make)
            except Exception as error:
                raise self._broken(name, error) from error
        return self._made[name]

    def _call(self, make: object) -> P:
        return cast("Callable[[Mapping[str, str]], P]", make)(self._environ)

    def _broken(self, name: str, error: BaseException) -> PluginBroken:
        return PluginBroken(f"{self._setting}: {name!r} cannot be made: {str(error) or type(error).__name__}")

    def _loaded(self, name: str, task: asyncio.Task[P]) -> None:
        del self._loading[name]
        if not task.cancelled():
            task.exception()  # whoever still waits has it; nobody may be left
