"""What the set-up tells once everything is ready: where it is, and what to do next."""

import io

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trunkline.devserver.devserver import Devserver

_WIDTH = 100


def banner(dev: Devserver, public_url: str, took_s: float, *, colour: bool) -> str:
    """Return the box to print."""
    edge = dev.edge_url
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    hook = f"{public_url.rstrip('/') or edge}/twilio/voice-hook"
    rows: list[tuple[str, str, str]] = [
        ("edge", edge, "bold cyan"),
        ("Twilio voice hook", hook, "bold"),
    ]
    if not public_url:
        rows.append(("", "for real calls: run a tunnel to the edge, give its address to", "dim"))
        rows.append(("", "TRUNKLINE_EDGE_PUBLIC_URL, and paste the hook into your Twilio number", "dim"))
    rows.append(("health", f"{edge}/health/ready   {edge}/metrics", ""))
    rows.extend((f"{name} stats", url, "") for name, url in dev.stats_urls())
    rows.append(("NATS", dev.nats_url + ("" if dev.embedded else "   (yours)"), ""))
    rows.append(("events", str(dev.events_file), ""))
    if dev.agents is not None:
        rows.append(("agents", str(dev.agents), ""))
    rows.append(("", "", ""))
    rows.append(("call it", "trunkline call", "bold green"))
    rows.append(("watch the bus", "trunkline tail --all", "bold green"))
    for label, text, style in rows:
        table.add_row(label, Text(text, style=style))
    title = f"trunkline dev · ready in {took_s:.1f} s"
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=colour, color_system="standard" if colour else None, width=_WIDTH, highlight=False
    )
    console.print(
        Panel(table, title=title, subtitle="Ctrl-C stops all", border_style="cyan", padding=(1, 2), expand=False)
    )
    return out.getvalue().rstrip("\n")
