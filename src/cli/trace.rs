//! `rotamq trace`: the packets of a client, or about a topic, as they come.
//!
//! Owns the arguments and what a packet looks like in a line. The broker records;
//! this asks for what is new until the recording is over, and has it forgotten.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::select;
use tokio::time::sleep;

use super::arguments::{span, topic_filter};
use super::http::{Api, Common, Listed, Route};
use super::progress::Progress;
use super::table::{self, bytes, moment_us, shortened, shown};
use super::{Failure, Outcome, client, goes_on};

/// Between two looks at what was recorded.
const POLL: Duration = Duration::from_millis(300);
/// Packets that one look gets.
const PAGE_MAX: usize = 1000;
/// Characters of a payload in a line.
const PAYLOAD_CHARS_MAX: usize = 100;

/// What `rotamq trace` is told.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  rotamq trace --client sensor-7
  rotamq trace --topic 'room/#' --for 10m --payload 100
  rotamq trace --user ann --json | jq 'select(.packet == \"PUBLISH\")'
  rotamq trace --client sensor-7 -n 100000 -o packets.ndjson")]
pub struct TraceArguments {
    #[command(flatten)]
    what: What,
    /// How long, at most an hour, as in 90s, 10m or 1h; Ctrl-C ends it before
    #[arg(long = "for", value_name = "SPAN", default_value = "1m", value_parser = span)]
    span: Duration,
    /// How many packets, at most 100000
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10_000)]
    packets: u32,
    /// Bytes of each payload that are recorded
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    payload: u32,
    /// Write the packets to this file, an object of JSON a line
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave the recording with the broker, where it is kept for an hour
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// What the client with this identifier sends and gets
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// What all clients of this user send and get
    #[arg(long)]
    user: Option<String>,
    /// What all clients from this IP address send and get
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Messages whose topics match this filter, whoever sends or gets them
    #[arg(long, value_name = "FILTER", value_parser = topic_filter)]
    topic: Option<String>,
}

/// Records, and prints what comes.
///
/// # Errors
/// The broker cannot be reached, or does not record that.
pub fn run(arguments: TraceArguments) -> Outcome {
    let common = arguments.common.clone();
    common.run_to_end(async |api| {
        let mut stopped = pin!(client::stopped()?);
        let mut sink = Sink::open(&arguments)?;
        let started = begin(api, &arguments).await?;
        let Some(id) = started["id"].as_u64() else {
            return Err(Failure::new("the broker does not say which trace it began"));
        };
        let of_it = Route::to(&["traces", &id.to_string()]);
        let most = table::span(arguments.span.as_secs() * 1000);
        client::warn(&format!("trace {id} goes on for {most}; Ctrl-C ends it"));
        let followed = follow(api, id, &mut sink, stopped.as_mut()).await;
        if !arguments.keep {
            // Where that fails it is forgotten within an hour anyway.
            _ = api.change::<Value>(Method::DELETE, &of_it, None).await;
        }
        let missed = followed?;
        sink.end()?;
        if missed > 0 {
            client::warn(&format!(
                "{missed} more packets found no room: ask for more with --packets, or less with \
                 --payload"
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn begin(api: &mut Api, arguments: &TraceArguments) -> Result<Value, Failure> {
    let What {
        client,
        user,
        address,
        topic,
    } = &arguments.what;
    let mut body = json!({
        "seconds": arguments.span.as_secs(),
        "packets_max": arguments.packets,
        "payload_bytes_max": arguments.payload,
    });
    let address = address.map(|address| address.to_string());
    let whats = [
        ("client", client.as_deref()),
        ("user", user.as_deref()),
        ("address", address.as_deref()),
        ("topic", topic.as_deref()),
    ];
    for (name, value) in whats {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    api.change(Method::POST, &Route::to(&["traces"]), Some(body))
        .await
}

/// Until it is over or full, nobody reads any more, or the process is told to
/// stop; how many packets found no room.
async fn follow(
    api: &mut Api,
    id: u64,
    sink: &mut Sink,
    mut stopped: Pin<&mut impl Future<Output = ()>>,
) -> Result<u64, Failure> {
    let id = id.to_string();
    let mut after = 0;
    let mut is_stopped = false;
    loop {
        // In this order, so that nothing is recorded behind the last look.
        let state: Value = api.get(&Route::to(&["traces", &id])).await?;
        let is_over = state["state"] != "recording";
        loop {
            let route = Route::to(&["traces", &id, "packets"]);
            let route = route.with("after", after).with("limit", PAGE_MAX);
            let page: Listed = api.get(&route).await?;
            after += page.items.len();
            if !sink.take(&page.items)? {
                return Ok(0);
            }
            if page.items.len() < PAGE_MAX {
                break;
            }
        }
        if is_over || is_stopped {
            return Ok(state["missed"].as_u64().unwrap_or(0));
        }
        select! {
            () = sleep(POLL) => {}
            () = &mut stopped => {
                is_stopped = true;
                let stop = Route::to(&["traces", &id, "stop"]);
                api.change::<Value>(Method::POST, &stop, None).await?;
            }
        }
    }
}

/// Where packets go.
enum Sink {
    Lines,
    Json,
    File {
        path: PathBuf,
        file: BufWriter<File>,
        progress: Progress,
    },
}

impl Sink {
    fn open(arguments: &TraceArguments) -> Result<Sink, Failure> {
        let Some(path) = &arguments.output else {
            return Ok(match arguments.common.json {
                true => Sink::Json,
                false => Sink::Lines,
            });
        };
        let file = File::create(path)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", path.display())))?;
        Ok(Sink::File {
            path: path.clone(),
            file: BufWriter::new(file),
            progress: Progress::counting("packets"),
        })
    }

    /// Whether there is anybody for more.
    fn take(&mut self, packets: &[Value]) -> Result<bool, Failure> {
        match self {
            _ if packets.is_empty() => Ok(true),
            Sink::Lines => goes_on(&packets.iter().map(line).collect::<String>()),
            Sink::Json => {
                let lines = packets.iter().map(|packet| format!("{packet}\n"));
                goes_on(&lines.collect::<String>())
            }
            Sink::File {
                path,
                file,
                progress,
            } => {
                for packet in packets {
                    writeln!(file, "{packet}").map_err(|error| unwritable(path, &error))?;
                }
                progress.add(packets.len() as u64);
                Ok(true)
            }
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self {
            Sink::File { path, mut file, .. } => {
                file.flush().map_err(|error| unwritable(&path, &error))
            }
            Sink::Lines | Sink::Json => Ok(()),
        }
    }
}

fn unwritable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()))
}

/// A packet in a line.
pub fn line(packet: &Value) -> String {
    let text = |name: &str| packet[name].as_str();
    let count = |name: &str| packet[name].as_u64();
    let is = |name: &str| packet[name].as_bool().unwrap_or(false);
    let mut parts = Vec::new();
    parts.extend(text("topic").map(shown));
    parts.extend(count("qos").map(|qos| format!("QoS {qos}")));
    parts.extend(is("dup").then(|| "dup".to_owned()));
    parts.extend(is("retain").then(|| "retain".to_owned()));
    parts.extend(text("reason_name").map(shown));
    parts.extend(packet["filters"].as_array().map(|filters| {
        let filters: Vec<String> = filters.iter().map(filter).collect();
        filters.join(", ")
    }));
    parts.extend(packet["reasons"].as_array().map(|reasons| {
        let reasons = reasons.iter().filter_map(Value::as_u64);
        let reasons: Vec<String> = reasons.map(|reason| format!("0x{reason:02X}")).collect();
        reasons.join(", ")
    }));
    parts.extend(packet["session_present"].as_bool().map(|present| {
        let state = if present { "is" } else { "is not" };
        format!("the session {state} there")
    }));
    parts.extend(is("clean_start").then(|| "clean start".to_owned()));
    parts.extend(count("keep_alive_secs").map(|secs| format!("keep alive {secs} s")));
    parts.extend(text("user_name").map(|user| format!("user {}", shown(user))));
    parts.extend(
        packet["will"]["topic"]
            .as_str()
            .map(|topic| format!("will to {}", shown(topic))),
    );
    parts.extend(text("error").map(shown));
    let properties = packet["properties"].as_array().into_iter().flatten();
    parts.extend(properties.map(property));
    parts.extend(count("payload_bytes").map(|len| {
        let len = bytes(usize::try_from(len).unwrap_or(usize::MAX));
        match (text("payload"), text("payload_base64")) {
            (Some(payload), _) => format!("{len}: {}", shortened(payload, PAYLOAD_CHARS_MAX)),
            (None, Some(base64)) => {
                format!("{len}: base64:{}", shortened(base64, PAYLOAD_CHARS_MAX))
            }
            (None, None) => len,
        }
    }));
    let id = count("packet_id").map_or(String::new(), |id| format!(" {id}"));
    let what = match &parts[..] {
        [] => String::new(),
        parts => format!("  {}", parts.join(", ")),
    };
    format!(
        "{}  {} {:>3}  {}{id}{what}\n",
        count("at_us").map_or("-".to_owned(), moment_us),
        shown(text("client").unwrap_or("-")),
        text("direction").unwrap_or("-"),
        shown(text("packet").unwrap_or("-")),
    )
}

fn filter(filter: &Value) -> String {
    let name = shown(filter["filter"].as_str().unwrap_or("-"));
    match filter["qos"].as_u64() {
        Some(qos) => format!("{name} at QoS {qos}"),
        None => name,
    }
}

fn property(property: &Value) -> String {
    let name = shown(property["name"].as_str().unwrap_or("-"));
    match &property["value"] {
        Value::String(text) => format!("{name} {}", shown(text)),
        Value::Array(pair) => {
            let pair: Vec<String> = (pair.iter())
                .map(|part| shown(part.as_str().unwrap_or("-")))
                .collect();
            format!("{name} {}", pair.join("="))
        }
        value => format!("{name} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_a_line_that_does_nothing_to_a_terminal() {
        let published = json!({
            "number": 1,
            "at_us": 86_400_000_007u64,
            "direction": "in",
            "client": "a\u{1b}[2J",
            "packet": "PUBLISH",
            "packet_id": 5,
            "topic": "t/\n",
            "qos": 1,
            "retain": true,
            "dup": false,
            "payload_bytes": 3,
            "payload": "\u{7}ab",
            "properties": [
                {"name": "user-property", "value": ["k", "v\r"]},
                {"name": "message-expiry-interval", "value": 60},
            ],
        });
        let expected = "1970-01-02 00:00:00.000007  a\\u{1b}[2J  in  PUBLISH 5  t/\\n, QoS 1, \
            retain, user-property k=v\\r, message-expiry-interval 60, 3 B: \\u{7}ab\n";
        assert_eq!(line(&published), expected);
        let asked = json!({
            "at_us": 0,
            "direction": "out",
            "client": "b",
            "packet": "SUBACK",
            "packet_id": 9,
            "reasons": [1, 135],
        });
        let expected = "1970-01-01 00:00:00.000000  b out  SUBACK 9  0x01, 0x87\n";
        assert_eq!(line(&asked), expected);
        let ping = json!({"at_us": 0, "direction": "in", "client": "b", "packet": "PINGREQ"});
        let expected = "1970-01-01 00:00:00.000000  b  in  PINGREQ\n";
        assert_eq!(line(&ping), expected);
    }
}
