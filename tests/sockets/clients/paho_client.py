"""One client of paho-mqtt, told what to do by lines of JSON.

What came of it, and every message, is written as a line of JSON.
"""

import json
import struct
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

written = threading.Lock()

# A field of a message and the property that says it.
EXTRA = {
    "format": "PayloadFormatIndicator",
    "expiry_secs": "MessageExpiryInterval",
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
    "correlation": "CorrelationData",
    "alias": "TopicAlias",
    "user": "UserProperty",
    "ids": "SubscriptionIdentifier",
}
CONNECT = {
    "session_expiry_secs": "SessionExpiryInterval",
    "receive_maximum": "ReceiveMaximum",
    "packet_bytes_max": "MaximumPacketSize",
    "topic_alias_maximum": "TopicAliasMaximum",
}
CONNACK = CONNECT | {"assigned_id": "AssignedClientIdentifier"}


def tell(event, **fields):
    with written:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def to_properties(packet, names, fields):
    properties = Properties(packet)
    for field, name in names.items():
        value = fields.get(field)
        if field == "correlation" and value is not None:
            value = value.encode()
        if field == "user":
            value = [tuple(pair) for pair in value or []]
        if value not in (None, []):
            setattr(properties, name, value)
    return properties


def from_properties(names, properties):
    fields = {}
    for field, name in names.items():
        if properties is not None and hasattr(properties, name):
            value = getattr(properties, name)
            fields[field] = value.decode() if isinstance(value, bytes) else value
    return fields


def why(properties):
    return getattr(properties, "ReasonString", None)


def on_connect(client, userdata, flags, reason, properties):
    connack = {"session_present": bool(flags.session_present)}
    connack |= from_properties(CONNACK, properties)
    tell("connected", reason=reason.value, why=why(properties), connack=connack)


def on_message(client, userdata, message):
    tell(
        "message",
        topic=message.topic,
        payload=message.payload.hex(),
        qos=message.qos,
        retain=message.retain,
        id=message.mid,
        extra=from_properties(EXTRA, message.properties),
    )


def on_publish(client, userdata, mid, reason, properties):
    user = getattr(properties, "UserProperty", None)
    if user:
        tell("told", user=user)
    tell("published", reason=reason.value)


def on_disconnect(client, userdata, flags, reason, properties):
    code = reason.value if flags.is_disconnect_packet_from_server else None
    tell("closed", reason=code, why=why(properties), says=str(reason))


def main():
    options = json.loads(sys.stdin.readline())
    five = options["version"] == "5"
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=options["id"],
        clean_session=None if five else options["clean"],
        protocol={"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[options["version"]],
        reconnect_on_failure=False,
        manual_ack=options["manual"],
        transport="websockets" if options["websocket"] else "unix" if options["unix"] else "tcp",
    )
    if options["ca"]:
        client.tls_set(ca_certs=options["ca"])
    if options["user"]:
        client.username_pw_set(*options["user"])
    client.max_inflight_messages_set(1000)
    client.on_connect = on_connect
    client.on_subscribe = lambda client, userdata, mid, reasons, properties: tell(
        "subscribed", granted=[reason.value for reason in reasons]
    )
    client.on_unsubscribe = lambda *_: tell("unsubscribed")
    client.on_publish = on_publish
    client.on_disconnect = on_disconnect
    client.on_message = on_message
    will = options["will"]
    if will:
        properties = None
        if five:
            properties = Properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = will["delay_secs"]
        client.will_set(will["topic"], will["payload"], will["qos"], will["retain"], properties)
    more = {}
    if five:
        properties = to_properties(PacketTypes.CONNECT, CONNECT, options)
        more = {"clean_start": options["clean"], "properties": properties}
    client.connect(options["unix"] or options["host"], options["port"], options["keep_alive_secs"], **more)
    client.loop_start()
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "subscribe" if five:
                how = SubscribeOptions(
                    qos=command["qos"],
                    noLocal=command["no_local"],
                    retainAsPublished=command["retain_as_published"],
                    retainHandling=command["retain_handling"],
                )
                properties = Properties(PacketTypes.SUBSCRIBE)
                if command["id"]:
                    properties.SubscriptionIdentifier = command["id"]
                if command["user"]:
                    properties.UserProperty = [tuple(pair) for pair in command["user"]]
                client.subscribe([(filter, how) for filter in command["filters"]], properties=properties)
            case "subscribe":
                client.subscribe([(filter, command["qos"]) for filter in command["filters"]])
            case "unsubscribe":
                client.unsubscribe(command["filter"])
            case "publish":
                properties = None
                if five:
                    properties = to_properties(PacketTypes.PUBLISH, EXTRA, command["extra"])
                payload = bytes.fromhex(command["payload"])
                client.publish(command["topic"], payload, command["qos"], command["retain"], properties)
            case "acknowledge":
                client.ack(command["id"], command["qos"])
            case "answer":
                # paho has no words for it: PUBACK is the only packet made by hand.
                properties = to_properties(PacketTypes.PUBACK, {"user": "UserProperty"}, command)
                body = struct.pack("!HB", command["id"], command["reason"]) + properties.pack()
                packet = bytes([0x40, len(body)]) + body
                client._packet_queue(0x40, packet, command["id"], 1)
            case "disconnect":
                properties = None
                if command["session_expiry_secs"] is not None:
                    properties = Properties(PacketTypes.DISCONNECT)
                    properties.SessionExpiryInterval = command["session_expiry_secs"]
                client.disconnect(properties=properties)
                client.loop_stop()
                return


main()
