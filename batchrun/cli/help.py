"""`batchrun help`."""

import click


@click.command("help")
@click.argument("command", metavar="[COMMAND]", required=False)
@click.pass_context
def help_command(context: click.Context, command: str | None) -> None:
    """Show the help of a command, or the list of all commands.

    \b
    batchrun help plan
    """
    group = context.parent
    if group is None or not isinstance(group.command, click.Group):
        raise click.UsageError("help belongs to batchrun's commands")
    if command is None:
        click.echo(group.get_help())
        return
    found = group.command.get_command(group, command)
    if found is None:
        # click's own way of resolving a name raises an error that names similar ones.
        group.command.resolve_command(group, [command])
        return
    with click.Context(found, info_name=command, parent=group) as inner:
        click.echo(found.get_help(inner))
