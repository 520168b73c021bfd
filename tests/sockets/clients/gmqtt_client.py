"""One client of gmqtt, told what to do by lines of JSON.

What came of it, and every message, is written as a line of JSON.
"""

import asyncio
import json
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.handler import MQTTConnectError

# A field of a message and the property that says it.
EXTRA = {
    "format": "payload_format_id",
    "expiry_secs": "message_expiry_interval",
    "content_type": "content_type",
    "response_topic": "response_topic",
    "correlation": "correlation_data",
    "alias": "topic_alias",
    "user": "user_property",
    "ids": "subscription_identifier",
}
CONNECT = {
    "session_expiry_secs": "session_expiry_interval",
    "receive_maximum": "receive_maximum",
    "packet_bytes_max": "maximum_packet_size",
    "topic_alias_maximum": "topic_alias_maximum",
}
CONNACK = CONNECT | {"assigned_id": "assigned_client_identifier"}
LISTS = ("user", "ids")


def tell(event, **fields):
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def to_properties(names, fields):
    properties = {}
    for field, name in names.items():
        value = fields.get(field)
        if value not in (None, []):
            if field == "user":
                value = [tuple(pair) for pair in value]
            properties[name] = value.encode() if field == "correlation" else value
    return properties


def from_properties(names, properties):
    fields = {}
    for field, name in names.items():
        values = properties.get(name)
        if values:
            values = [value.decode() if isinstance(value, bytes) else value for value in values]
            fields[field] = values if field in LISTS else values[0]
    return fields


async def main():
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    options = json.loads(await lines.readline())
    five = options["version"] == "5"
    will = options["will"]
    if will:
        delay = {"will_delay_interval": will["delay_secs"]} if five and will["delay_secs"] else {}
        will = gmqtt.Message(will["topic"], will["payload"], will["qos"], will["retain"], **delay)
    client = gmqtt.Client(
        options["id"],
        clean_session=options["clean"],
        optimistic_acknowledgement=not options["answers"],
        will_message=will,
        **to_properties(CONNECT, options if five else {}),
    )
    client.set_config({"reconnect_retries": 0})

    def on_connect(client, flags, reason, properties):
        # It gives what was asked for in the place of what was answered.
        answered = client._package_handler._connack_properties
        connack = {"session_present": bool(flags & 1)} | from_properties(CONNACK, answered)
        tell("connected", reason=reason, connack=connack)

    async def on_message(client, topic, payload, qos, properties):
        extra = from_properties(EXTRA, properties)
        tell(
            "message",
            topic=topic,
            payload=payload.hex(),
            qos=qos,
            retain=bool(properties["retain"]),
            extra=extra,
        )
        return options["answers"].get(payload.decode(errors="replace"), 0)

    def on_disconnect(client, packet, exc=None):
        # A refusal is told below.
        if not client._package_handler.has_error:
            tell("closed", reason=packet[0] if packet else None, says="DISCONNECT or the end")

    client.on_connect = on_connect
    client.on_message = on_message
    client.on_disconnect = on_disconnect
    client.on_subscribe = lambda client, mid, granted, properties: tell(
        "subscribed", granted=list(granted)
    )
    client.on_unsubscribe = lambda *_: tell("unsubscribed")
    try:
        await client.connect(
            options["host"],
            options["port"],
            keepalive=options["keep_alive_secs"],
            version=MQTTv50 if five else MQTTv311,
        )
    except MQTTConnectError as error:
        tell("connected", reason=error._code)
    while line := await lines.readline():
        command = json.loads(line)
        match command.pop("do"):
            case "subscribe":
                more = {"subscription_identifier": command["id"]} if command["id"] else {}
                client.subscribe(
                    [
                        gmqtt.Subscription(
                            filter,
                            qos=command["qos"],
                            no_local=command["no_local"],
                            retain_as_published=command["retain_as_published"],
                            retain_handling_options=command["retain_handling"],
                        )
                        for filter in command["filters"]
                    ],
                    **more,
                )
            case "unsubscribe":
                client.unsubscribe(command["filter"])
            case "publish":
                client.publish(
                    command["topic"],
                    bytes.fromhex(command["payload"]),
                    command["qos"],
                    command["retain"],
                    **to_properties(EXTRA, command["extra"] if five else {}),
                )
                # Its callbacks do not tell; its list of the unacknowledged does.
                await client._persistent_storage.wait_empty()
                tell("published", reason=0)
            case "disconnect":
                more = {}
                if command["session_expiry_secs"] is not None:
                    more["session_expiry_interval"] = command["session_expiry_secs"]
                await client.disconnect(**more)
                return


asyncio.run(main())
