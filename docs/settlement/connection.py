"""What the parts of the example have in common: a connection that comes back."""

import argparse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SETTLEMENTS = "$queue/settlements"
RESULTS = "$queue/results"


def arguments(about):
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    return parser


def user(*pairs):
    """The properties of a PUBLISH with these user properties."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = list(pairs)
    return properties


def said(message, name):
    """The user property of that name, which the queue adds to each message."""
    return dict(message.properties.UserProperty)[name]


def client():
    """Not connected; acknowledges messages only when told to."""
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, manual_ack=True)
    # What is published and not acknowledged goes out again after reconnecting.
    made.max_inflight_messages_set(500)
    made.reconnect_delay_set(min_delay=1, max_delay=1)
    return made
