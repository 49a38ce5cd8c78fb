"""Say in one line what a hyperparameter search found."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]


def describe_search(outcome: Record) -> str:
    """Return counts, the devices' use, the chosen trial and whether the best can be told apart."""
    busy = outcome["busy"]
    engines = [share for name, share in busy.items() if name.startswith("engine_")]
    each = f" ({', '.join(f'{share:.0%}' for share in engines)})" if engines else ""
    return (
        f"{outcome['stage']}: {outcome['trials']} trials, {outcome['pruned']} pruned, "
        f"{outcome['failed']} failed, {outcome['wall_s'] / 60:.1f} minutes; trainer busy "
        f"{busy['train']:.0%}, engine {busy['eval']:.0%}{each}; {_describe_best(outcome['best'])}"
        f"{_describe_difference(outcome['difference'])}"
    )


def _describe_best(best: Record) -> str:
    """Name the chosen trial, its score on all validation problems and its hyperparameters."""
    low, high = best["accuracy_ci95"]
    params = (
        f"{name} = {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in best["params"].items()
    )
    return (
        f"best is trial {best['number']} ({best['objective']} {best['value']:.4g} when searched), "
        f"{100 * best['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of all {best['n']} "
        f"validation problems: {', '.join(params)}"
    )


def _describe_difference(difference: Record | None) -> str:
    """Say whether the best trials can be told apart; nothing where only one was scored again."""
    if difference is None:
        return ""
    low, high = difference["ci95"]
    return (
        f"; {'the optimum is flat: ' if difference['flat'] else ''}best and worst of those scored "
        f"again differ by {difference['points']:.1f} points ({low:.1f} to {high:.1f})"
    )
