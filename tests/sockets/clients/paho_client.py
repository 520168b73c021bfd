"""One client of paho-mqtt, told what to do by lines of JSON.

What came of it, and every message, is written as a line of JSON.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt

written = threading.Lock()


def tell(event, **fields):
    with written:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def on_message(client, userdata, message):
    tell(
        "message",
        topic=message.topic,
        payload=message.payload.hex(),
        qos=message.qos,
        retain=message.retain,
        id=message.mid,
    )


def main():
    options = json.loads(sys.stdin.readline())
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=options["id"],
        clean_session=options["clean"],
        protocol={"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311}[options["version"]],
        reconnect_on_failure=False,
        manual_ack=options["manual"],
    )
    client.max_inflight_messages_set(1000)
    client.on_connect = lambda client, userdata, flags, reason, properties: tell(
        "connected", present=flags.session_present, failed=str(reason) if reason.is_failure else ""
    )
    client.on_subscribe = lambda client, userdata, mid, reasons, properties: tell(
        "subscribed", granted=[reason.value for reason in reasons]
    )
    client.on_unsubscribe = lambda *_: tell("unsubscribed")
    client.on_publish = lambda *_: tell("published")
    client.on_disconnect = lambda client, userdata, flags, reason, properties: tell(
        "closed", why=str(reason)
    )
    client.on_message = on_message
    will = options["will"]
    if will:
        client.will_set(will["topic"], will["payload"], will["qos"], will["retain"])
    client.connect(options["host"], options["port"], options["keep_alive_secs"])
    client.loop_start()
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "subscribe":
                client.subscribe([(filter, command["qos"]) for filter in command["filters"]])
            case "unsubscribe":
                client.unsubscribe(command["filter"])
            case "publish":
                payload = bytes.fromhex(command["payload"])
                client.publish(command["topic"], payload, command["qos"], command["retain"])
            case "acknowledge":
                client.ack(command["id"], command["qos"])
            case "disconnect":
                client.disconnect()
                client.loop_stop()
                return


main()
