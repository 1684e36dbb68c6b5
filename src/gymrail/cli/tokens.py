"""`gymrail tokens check`: whether what is trained with a checkpoint's chat template is what was sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gymrail.cli.options import AsJson

if TYPE_CHECKING:
    from gymrail.template_check import Finding, TemplateReport

WAYS = ("rollouts", "messages")

app = typer.Typer(help="Check that what is trained is what was sampled.", no_args_is_help=True)


@app.callback()
def _tokens() -> None:
    """Check that what is trained is what was sampled."""


@app.command("check", short_help="Try a checkpoint's chat template, token by token.")
def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Checkpoint's folder or hub id; only its tokenizer is loaded.", show_default=False
        ),
    ],
    train: Annotated[
        str,
        typer.Option(
            "--train",
            metavar="WAY",
            help="What is trained on: rollouts (GRPO, token exports) or messages (SFT and DPO on messages).",
        ),
    ] = "rollouts",
    as_json: AsJson = False,
) -> None:
    """Play scripted episodes through the chat template and hold what would be trained against what was sampled.

    Exit code 1 where they differ. No weights are loaded and nothing is generated.
    """  # fmt: skip
    import asyncio

    from gymrail.cli.output import print_json
    from gymrail.errors import InputError, did_you_mean
    from gymrail.models.transformers import load_tokenizer
    from gymrail.template_check import check_template

    if train not in WAYS:
        raise InputError(f"--train is {train!r}. {did_you_mean(train, WAYS)}")
    tokenizer, ends = load_tokenizer(model)
    report = asyncio.run(check_template(tokenizer, sorted(ends)))
    failures = report.failures(train)  # pyright: ignore[reportArgumentType]
    if as_json:
        print_json({"model": model, "train": train, "passed": not failures, **report.to_json()})
    else:
        _print(report, failures, train)
    if failures:
        raise typer.Exit(1)


def _print(report: TemplateReport, failures: list[Finding], train: str) -> None:
    end = "none that stops sampling" if report.turn_end is None else repr(report.turn_end)
    typer.echo(f"Tool calls: {report.tool_format}. End of a turn: {end}.")
    if not any(finding.kind == "differs" for finding in report.findings):
        typer.echo(
            f"Rollouts: {report.episodes} episodes, {report.turns} turns, {report.sampled_tokens} sampled tokens. "
            "Each is trained once, with its own log-prob, and nothing else is."
        )
    _list("Rollouts cannot be trained as they were sampled:", report, "differs")
    note = (
        "" if train == "messages" else " Rollouts are trained by the sampled ids, which are spliced and not rendered."
    )
    _list(f"Rendered again from messages, an episode would differ.{note}", report, "drift")
    _list("Limits:", report, "limit")
    if not failures:
        typer.echo(f"Passed: trained on {train}, what is trained is what was sampled.")
    else:
        typer.echo(f"Failed: trained on {train}, what is trained would differ from what was sampled.")


def _list(title: str, report: TemplateReport, kind: str) -> None:
    found = [finding for finding in report.findings if finding.kind == kind]
    if not found:
        return
    typer.echo(title)
    for finding in found:
        who = "Where the policy writes otherwise than the template, it" if finding.by == "policy" else "The template"
        is_sentence = finding.cause[:1].isupper()
        typer.echo(
            f"  {finding.cause.rstrip('.') if is_sentence else f'{who} {finding.cause}'} (episode: {finding.probe})."
        )
        if finding.token is not None:
            typer.echo(f"    Token {finding.token}: {finding.sampled!r} was sampled, {finding.rendered!r} is rendered.")
        typer.echo(f"    {finding.fix}")
