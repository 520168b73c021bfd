"""Puts the settlements into the queue, and ends when all are acknowledged.

May be killed and started again: it knows nothing of what it has sent before.
"""

import json
import threading

import connection


def settlement(number):
    """The same each time: an account, and what it gets or pays."""
    return {"number": number, "account": number % 7, "cents": number * 37 % 1999 - 999}


def main():
    parser = connection.arguments(__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    acknowledged = threading.Semaphore(0)
    refused = []
    client = connection.client()

    def on_publish(client, userdata, mid, reason, properties):
        if reason.is_failure:
            # The queue is full, or the disk; a real one would try again later.
            refused.append(str(reason))
        acknowledged.release()

    client.on_publish = on_publish
    client.connect_async(options.host, options.port)
    client.loop_start()
    for number in range(options.count):
        dedup_id = connection.user(("dedup-id", f"settlement-{number}"))
        client.publish(connection.SETTLEMENTS, json.dumps(settlement(number)), 1, properties=dedup_id)
    for _ in range(options.count):
        acknowledged.acquire()
    client.disconnect()
    client.loop_stop()
    if refused:
        raise SystemExit(f"{len(refused)} settlements were refused: {refused[0]}")


if __name__ == "__main__":
    main()
