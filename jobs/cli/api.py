"""`textmill api`: the HTTP API as a service of its own."""

import click

from jobs import tracing
from jobs.cli.serving import server
from jobs.cli.session import registry, store


@click.command()
@click.option("--host", metavar="ADDRESS", help="Where to listen [setting api_host: 127.0.0.1].")
@click.option("--port", metavar="N", type=click.IntRange(0, 65535), help="0: any free port [setting api_port: 8460].")
def api(host: str | None, port: int | None) -> None:
    """Serve the HTTP API and the dashboard in the foreground, until SIGTERM or Ctrl-C. On loopback without keys as
    long as there is none; elsewhere only with keys: `textmill keys create NAME`."""
    from jobs.api.spool import spool_all_in
    from jobs.logs import log_to_stderr
    from jobs.queue import Queue
    from jobs.settings import load_settings

    given = {"api_host": host, "api_port": port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    log_to_stderr(settings)
    tracing.start("api")
    with store(settings) as opened:
        opened.check_schema()
        registry(opened, settings)
        spool_all_in(settings.home)
        queue = Queue(settings)
        try:
            served = server(settings, opened, queue)
            click.echo(
                f"textmill: the API is at {served.url}/api/v1; the dashboard is at {served.url}; Ctrl-C ends it",
                err=True,
            )
            served.run()
        finally:
            queue.close()
