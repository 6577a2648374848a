"""``driftline silence``: ask for a silence, end it, list what is silent."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
import typer

from streams import silence as silences
from streams.cli import session, stdout
from streams.errors import WrongSetting
from streams.settings import Settings
from streams.topics import Topics


def silence(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Argument(help="The model.", show_default=False)] = None,
    lasts: Annotated[str | None, typer.Option("--for", help="How long from now: 30m, 2h, 1h30m, 3d.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; whoever reads the log later wants to know.")] = None,
    end: Annotated[bool, typer.Option("--end", help="End the model's silence now.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show which models are silenced.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell no alert of a model during maintenance. They are tracked, and what still fires is told at the end."""
    from streams.kafka import SafeProducer
    from streams.status import read_catalog

    settings = session(ctx).settings
    topic = Topics(settings.kafka.topic_prefix).model_events
    now_ms = time.time_ns() // 1_000_000
    if listed:
        if model is not None or lasts is not None or reason is not None or end:
            raise WrongSetting("--list takes nothing else", "`driftline silence --list`")
        return _list(settings, topic, now_ms, json=json)
    if model is None:
        raise WrongSetting("name a model", "for example `driftline silence MODEL --for 2h --reason WHY`, or --list")
    if end:
        if lasts is not None or reason is not None:
            raise WrongSetting("--end takes neither --for nor --reason", "end the silence, then ask for another one")
        event = silences.ended(read_catalog(settings, topic), model, now_ms, silences.whoami())
    else:
        if lasts is None or not reason:
            raise WrongSetting("a silence needs --for and --reason", "for example --for 2h --reason 'new label source'")
        for_s = silences.duration_s(lasts)
        event = silences.begun(read_catalog(settings, topic), model, now_ms, for_s, reason, silences.whoami())
    producer = SafeProducer(settings.kafka)
    try:
        value, key, headers = silences.encoded(event)
        producer.send(topic, value, key, headers)
        producer.flush()
    finally:
        producer.close()
    if json:
        typer.echo(msgspec.json.encode(event.silence).decode())
    elif event.silence is not None:
        stdout().print(f"{model} is silent {'no more' if end else f'until {event.silence.ends_at}'}", soft_wrap=True)
    return None


def _list(settings: Settings, topic: str, now_ms: int, *, json: bool) -> None:
    from streams.status import read_catalog

    found = silences.current(read_catalog(settings, topic), now_ms)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    for model, each in found.items():
        by = f" ({each.by})" if each.by else ""
        stdout().print(f"{model} until {each.ends_at}: {each.reason}{by}", soft_wrap=True, markup=False)
    if not found:
        stdout().print("nothing is silenced")
