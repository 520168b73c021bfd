"""Takes settlements, computes their results, and settles each by its result.

May be killed at any time: what it held comes to another worker.
"""

import json

import connection


def result(settlement, message_id):
    """What the ledger gets: a fee of a hundredth is taken from each."""
    cents = settlement["cents"]
    return {**settlement, "settlement": message_id, "fee": abs(cents) // 100}


def main():
    options = connection.arguments(__doc__).parse_args()
    client = connection.client()
    # Packet id of a result: packet id of the delivery that it settles.
    in_hand = {}

    def on_connect(client, userdata, flags, reason, properties):
        # Packet ids of the connection before mean nothing in this one.
        in_hand.clear()
        client.subscribe(connection.SETTLEMENTS, qos=1)

    def on_message(client, userdata, message):
        message_id = connection.said(message, "message-id")
        payload = json.dumps(result(json.loads(message.payload), message_id))
        settles = connection.user(("settles", message_id))
        published = client.publish(connection.RESULTS, payload, 1, properties=settles)
        in_hand[published.mid] = message.mid

    def on_publish(client, userdata, mid, reason, properties):
        # Stored and done, or refused as somebody else has it (0x83): both ways
        # it is no more ours, and the acknowledgement only frees its packet id.
        # Refused for now (0x97), it still is: when its time is over, somebody
        # tries it again.
        delivery = in_hand.pop(mid, None)
        if delivery is not None and (not reason.is_failure or reason.value == 0x83):
            client.ack(delivery, 1)

    client.on_connect = on_connect
    client.on_message = on_message
    client.on_publish = on_publish
    client.connect_async(options.host, options.port)
    client.loop_forever(retry_first_connection=True)


main()
