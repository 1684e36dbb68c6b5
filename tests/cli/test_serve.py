from gymrail.cli import serve as serve_command


def test_an_open_server_is_refused_beyond_loopback(run) -> None:
    for host in ("0.0.0.0", "::", "example.org", "192.0.2.1"):
        done = run("serve", "session_counter", "--open", "--host", host)
        assert done.code == 2
        assert f"{host!r} is not a loopback address" in done.stderr


def test_an_unknown_name_is_refused_with_the_nearest(run) -> None:
    done = run("serve", "sesion_counter")
    assert done.code == 2
    assert "Did you mean 'session_counter'?" in done.stderr


def test_a_short_key_is_refused(run, monkeypatch) -> None:
    monkeypatch.setenv("GYMRAIL_KEY", "short")
    done = run("serve", "session_counter")
    assert done.code == 2
    assert "5 characters" in done.stderr


def test_a_taken_port_is_said_in_one_sentence(run) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "session_counter", "--port", port)
    assert done.code == 2
    assert f"Port {port} is taken" in done.stderr


def test_a_missing_extra_is_named_with_the_command_that_installs_it(run, monkeypatch) -> None:
    monkeypatch.setattr(serve_command, "_PACKAGES", ("fastapi", "no_such_package_here"))
    for command in (("serve", "session_counter"), ("mcp", "calculator")):
        done = run(*command)
        assert done.code == 2
        assert "(no_such_package_here): pip install 'gymrail[serve]'" in done.stderr


def test_mcp_takes_a_server_or_a_url_and_a_task_only_where_there_are_tasks(run) -> None:
    for arguments, part in (
        (("--task", "1"), "name one: `gymrail mcp SERVER"),
        (("calculator", "--url", "http://localhost/e/x/mcp"), "not both"),
        (("--url", "http://localhost/e/x/mcp", "--task", "1"), "has its task and settings already"),
        (("calculator", "--task", "1"), "has no tasks"),
        (("mcqa", "--split", "example", "--task", "100000"), "no task 100000"),
    ):
        done = run("mcp", *arguments)
        assert done.code == 2, arguments
        assert part in done.stderr
