"""The browser that looks at pages asks nothing of the world."""

import ipaddress
import json

from browser import open_page, requires_browser


def events(log):
    """The browser's own log of the network: (what, its parameters) of each event."""
    text = log.read_text(encoding="utf-8")
    try:
        read = json.loads(text)
    except json.JSONDecodeError:  # a browser that was ended quickly has not written the brackets
        read = json.loads(text[: text.rindex("\n")].rstrip().rstrip(",") + "]}")
    names = {number: name for name, number in read["constants"]["logEventTypes"].items()}
    return [(names[event["type"]], event.get("params", {})) for event in read["events"]]


@requires_browser
def test_what_the_browser_asks_by_itself_stays_on_this_machine(tmp_path):
    page, log = tmp_path / "page.html", tmp_path / "net.json"
    page.write_text("<p>A page</p>", encoding="utf-8")
    with open_page(page, options=[f"--log-net-log={log}"]) as opened:
        opened.wait(lambda: "accounts.google.com" in log.read_text(encoding="utf-8"))  # it does ask
        assert opened.outside() == []
    done = events(log)
    hosts = [
        params["address"].rpartition(":")[0].strip("[]")
        for name, params in done
        if name == "TCP_CONNECT_ATTEMPT" and "address" in params
    ]
    assert hosts and all(ipaddress.ip_address(host).is_loopback for host in hosts)
    # It connects a datagram socket to see whether there is IPv6, which sends nothing.
    assert not any("BYTES_SENT" in name and name.startswith("UDP") for name, _ in done)
