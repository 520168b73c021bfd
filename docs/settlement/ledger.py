"""Writes the results into a ledger, keyed by the settlement's message id.

May be killed at any time: what is not acknowledged comes again.
"""

import json
import sqlite3
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import connection

TABLES = """
CREATE TABLE IF NOT EXISTS ledger (
    settlement TEXT PRIMARY KEY, number INTEGER, account INTEGER, cents INTEGER, fee INTEGER, result TEXT);
CREATE TABLE IF NOT EXISTS twice (settlement TEXT, result TEXT PRIMARY KEY);
"""
# Results that wait for their acknowledgement; half of them make a transaction.
PREFETCH = 100
ENTRIES_MAX = PREFETCH // 2
SECONDS_MAX = 0.05


def enter(ledger, result, result_id):
    """One entry a settlement; a second result for it is noted apart."""
    keys = ("settlement", "number", "account", "cents", "fee")
    entry = (*(result[key] for key in keys), result_id)
    ledger.execute("INSERT OR IGNORE INTO ledger VALUES (?, ?, ?, ?, ?, ?)", entry)
    [first] = ledger.execute("SELECT result FROM ledger WHERE settlement = ?", entry[:1]).fetchone()
    if first != result_id:
        ledger.execute("INSERT OR IGNORE INTO twice VALUES (?, ?)", (entry[0], result_id))


def main():
    parser = connection.arguments(__doc__)
    parser.add_argument("database")
    options = parser.parse_args()
    ledger = sqlite3.connect(options.database)
    ledger.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + TABLES)
    client = connection.client()
    entered = []

    def on_connect(client, userdata, flags, reason, properties):
        prefetch = Properties(PacketTypes.SUBSCRIBE)
        prefetch.UserProperty = ("prefetch", str(PREFETCH))
        client.subscribe(connection.RESULTS, qos=1, properties=prefetch)

    def on_message(client, userdata, message):
        enter(ledger, json.loads(message.payload), connection.said(message, "message-id"))
        entered.append(message.mid)

    client.on_connect = on_connect
    client.on_message = on_message
    connected, since = False, time.monotonic()
    while True:
        if not connected:
            try:
                client.connect(options.host, options.port)
                connected = True
            except OSError:
                time.sleep(0.2)
                continue
        connected = client.loop(SECONDS_MAX) == mqtt.MQTT_ERR_SUCCESS
        if not connected or len(entered) >= ENTRIES_MAX or time.monotonic() - since > SECONDS_MAX:
            ledger.commit()
            # A packet id means nothing in the next connection.
            for delivery in entered if connected else []:
                client.ack(delivery, 1)
            entered.clear()
            since = time.monotonic()


main()
