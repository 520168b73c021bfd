//! The broker over real sockets, with clients that are not its own:
//! mosquitto's, paho-mqtt and gmqtt for Python, MQTT.js in Node.js and in Chromium,
//! rumqttc, HAProxy in between; and raw bytes where no client would do such a
//! thing. `tests/run` installs them.

mod access;
mod api;
mod authentication;
mod bad_input;
mod browser;
#[path = "../bytes.rs"]
mod bytes;
mod certificates;
mod clients;
mod commands;
mod commands5;
mod commands_tls;
mod crowd;
mod daemon;
mod dashboard;
mod drain;
mod features;
#[path = "../hostile.rs"]
mod hostile;
mod http;
mod http_bounds;
mod limits;
mod listeners;
mod log;
mod memory;
mod metrics;
mod mqtt5;
mod operate_commands;
mod process;
mod program;
mod proxy;
mod pubsub;
mod queues;
mod raw;
mod reload;
mod results;
#[path = "../root.rs"]
mod root;

mod schemathesis;
mod service;
mod sessions;
mod steering;
mod store;
mod sys;
mod systemd;
mod tls;
mod tokens;
mod traces;
mod transports;
mod unix;
mod users;
mod wait;
mod websocket;
