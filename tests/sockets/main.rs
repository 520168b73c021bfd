//! The broker over real sockets, with clients that are not its own:
//! mosquitto's, paho-mqtt and gmqtt for Python, MQTT.js, rumqttc; and raw bytes
//! where no client would do such a thing. `tests/run` installs them.

mod access;
mod authentication;
mod bad_input;
#[path = "../bytes.rs"]
mod bytes;
mod certificates;
mod clients;
mod commands;
mod commands5;
mod crowd;
mod features;
#[path = "../hostile.rs"]
mod hostile;
mod memory;
mod mqtt5;
mod process;
mod program;
mod proxy;
mod pubsub;
mod queues;
mod raw;
mod results;
mod sessions;
mod steering;
mod store;
mod tls;
mod tokens;
mod transports;
mod unix;
mod users;
mod wait;
mod websocket;
