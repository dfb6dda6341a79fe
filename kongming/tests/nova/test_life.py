import time


def test_a(server, cloud):
    server.act("reboot", {"type": "SOFT"}, ends="reboot")
    time.sleep(1)
