//! `full`: a small disk fills up with jobs. Below the reserve the broker
//! refuses them, settling goes on and frees room, and then they are taken
//! again, without a restart. What it acknowledged in all that is there.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::broker::Program;
use crate::plan::{MessageKey, Plan};
use crate::root::as_root;
use crate::rounds::{Place, seed_of_now};
use crate::wire::{Codec, Packet, PacketId, Publish, Version};

/// What `full` is told.
#[derive(clap::Args)]
pub struct Full {
    #[command(flatten)]
    place: Place,
}

const DISK_BYTES: u64 = 64 << 20;
const FREE_BYTES_MIN: u64 = 24 << 20;
const LOG_BYTES_MAX: u64 = 8 << 20;
const MESSAGE_BYTES: usize = 8 << 10;
const WINDOW: usize = 20;
/// Quota exceeded.
const REFUSED: u8 = 0x97;
/// In how much time a refusal has to come.
const REFUSAL_TIME: Duration = Duration::from_millis(100);
/// Refusals in a row that are looked at.
const REFUSALS: usize = 21;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take until the room that settling freed can be used.
const RESUME_PATIENCE: Duration = Duration::from_secs(60);
/// Jobs that are settled before it is tried to put in another one.
const SETTLED_BETWEEN: usize = 50;

impl Full {
    /// Whether all went as it should.
    ///
    /// # Errors
    /// If it could not be played, or nothing after a fault can be.
    pub fn run(&self) -> Result<bool, String> {
        let folder = self.place.make()?;
        let disk = Disk::mount(folder.join("disk"))?;
        let program = Program {
            path: self.place.broker.clone(),
            data: disk.folder.join("data"),
            options: vec![
                ("store", "free_bytes_min", FREE_BYTES_MIN.to_string()),
                ("store", "log_bytes_max", LOG_BYTES_MAX.to_string()),
                // Who is held back here is held until the end.
                ("limits", "held_timeout_ms", "600000".into()),
            ],
        };
        let wrong = play(&program)?;
        drop(disk);
        _ = std::fs::remove_dir_all(&folder);
        for text in &wrong {
            println!("  {text}");
        }
        let end = if wrong.is_empty() {
            "refused, drained, resumed; nothing lost"
        } else {
            "WRONG"
        };
        println!("a full disk: {end}");
        Ok(wrong.is_empty())
    }
}

/// What went wrong.
fn play(program: &Program) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    let mut broker = program.start()?;
    let mut jobs = Jobs::new();
    let mut producer = Client::connect(broker.address(), Version::V5, "producer")?;

    jobs.fill(&mut producer)?;
    println!(
        "refused after {} jobs of {MESSAGE_BYTES} bytes",
        jobs.accepted.len()
    );
    wrong.extend(jobs.refusals_take(&mut producer)?);

    // Full as it is, it can be started.
    broker.kill();
    broker.end()?;
    broker = program.start()?;
    let mut producer = Client::connect(broker.address(), Version::V5, "producer")?;
    wrong.extend(jobs.refusals_take(&mut producer)?);

    // MQTT 3.1.1 has no refusal: the message is held, and other packets are read.
    let mut held = Client::connect(broker.address(), Version::V311, "held")?;
    let job = jobs.next();
    held.send(jobs.publish(job));
    held.send(Packet::PingReq);
    match held.receive(PATIENCE)? {
        Some(Packet::PingResp) => {}
        other => wrong.push(format!(
            "held back, it was answered {other:?}, not PINGRESP"
        )),
    }
    jobs.pending = Some(job);

    let mut worker = Client::connect(broker.address(), Version::V5, "worker")?;
    worker.send(Packet::Subscribe(
        PacketId::MIN,
        format!("$queue/{QUEUE}"),
        1,
    ));
    match worker.receive(PATIENCE)? {
        Some(Packet::SubAck(_, 1)) => {}
        other => {
            return Err(format!(
                "SUBSCRIBE was answered {other:?}, not SUBACK with QoS 1"
            ));
        }
    }
    let resumed = jobs.drain(&mut worker, &mut producer, &mut held)?;
    match resumed {
        Some(settled) => println!("taken again after {settled} were settled"),
        None => wrong.push("nothing was taken again, though all was settled".into()),
    }
    wrong.extend(jobs.faults());
    broker.kill();
    broker.end()?;
    Ok(wrong)
}

const QUEUE: &str = "full";

/// The jobs of the test, and what is known of them.
struct Jobs {
    /// Makes and recognises payloads.
    plan: Plan,
    next: u64,
    accepted: HashSet<u64>,
    refused: HashSet<u64>,
    /// Sent by a client that is held back.
    pending: Option<u64>,
    got: HashSet<u64>,
    /// What came a second time.
    twice: usize,
}

impl Jobs {
    fn new() -> Jobs {
        Jobs {
            plan: Plan::new("full", seed_of_now(), true),
            next: 0,
            accepted: HashSet::new(),
            refused: HashSet::new(),
            pending: None,
            got: HashSet::new(),
            twice: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn publish(&self, number: u64) -> Packet {
        let topic = format!("$queue/{QUEUE}");
        let key = MessageKey {
            publisher: 0,
            number,
        };
        Packet::Publish(Publish {
            dup: false,
            retain: false,
            payload: Bytes::from(self.plan.payload(key, &topic, MESSAGE_BYTES)),
            topic,
            packet_id: Some(id_of(number)),
            qos: 1,
        })
    }

    /// Publishes until the first refusal, and takes all answers.
    fn fill(&mut self, producer: &mut Client) -> Result<(), String> {
        let mut under_way = Vec::new();
        while self.refused.is_empty() || !under_way.is_empty() {
            while self.refused.is_empty() && under_way.len() < WINDOW {
                if self.next * MESSAGE_BYTES as u64 > DISK_BYTES {
                    return Err("more was acknowledged than the disk can hold".into());
                }
                let job = self.next();
                producer.send(self.publish(job));
                under_way.push(job);
            }
            let job = under_way.remove(0);
            self.answered(producer, job)?;
        }
        Ok(())
    }

    /// Takes the answer to a job; whether it was accepted.
    fn answered(&mut self, producer: &mut Client, job: u64) -> Result<bool, String> {
        match producer.receive(PATIENCE)? {
            Some(Packet::PubAck(id, code)) if id == id_of(job) && code < 0x80 => {
                self.accepted.insert(job);
                Ok(true)
            }
            Some(Packet::PubAck(id, REFUSED)) if id == id_of(job) => {
                self.refused.insert(job);
                Ok(false)
            }
            other => Err(format!("job {job} was answered {other:?}")),
        }
    }

    /// Publishes until so many were refused in a row; says if that takes long.
    /// Room may still be freed meanwhile, by moving what the log holds.
    fn refusals_take(&mut self, producer: &mut Client) -> Result<Option<String>, String> {
        let began = Instant::now();
        let mut times = Vec::new();
        while times.len() < REFUSALS {
            if began.elapsed() > RESUME_PATIENCE {
                return Ok(Some("it does not go on refusing".into()));
            }
            let job = self.next();
            let sent = Instant::now();
            producer.send(self.publish(job));
            if self.answered(producer, job)? {
                times.clear();
            } else {
                times.push(sent.elapsed());
            }
        }
        times.sort();
        let median = times[times.len() / 2];
        Ok((median > REFUSAL_TIME)
            .then(|| format!("a refusal takes {median:?}, not {REFUSAL_TIME:?}")))
    }

    /// Settles all jobs, and tries again and again to put in another one. How
    /// many were settled when that went well; `None`: it never did.
    fn drain(
        &mut self,
        worker: &mut Client,
        producer: &mut Client,
        held: &mut Client,
    ) -> Result<Option<usize>, String> {
        let mut last_job = Instant::now();
        let mut resumed = None;
        let mut settled = 0;
        loop {
            let done = self.pending.is_none() && self.accepted.is_subset(&self.got);
            let idle_max = if resumed.is_some() {
                PATIENCE
            } else {
                RESUME_PATIENCE
            };
            if (done && resumed.is_some()) || last_job.elapsed() > idle_max {
                return Ok(resumed);
            }
            let idle = match worker.receive(Duration::from_millis(20))? {
                Some(Packet::Publish(publish)) => {
                    let message = self.plan.message_of(&publish.payload)?;
                    if !self.got.insert(message.number) {
                        self.twice += 1;
                    }
                    let id = publish.packet_id.ok_or("a job came at QoS 0")?;
                    worker.send(Packet::PubAck(id, 0));
                    settled += 1;
                    last_job = Instant::now();
                    false
                }
                Some(other) => return Err(format!("the worker was sent {other:?}")),
                None => true,
            };
            if resumed.is_none() && (idle || settled % SETTLED_BETWEEN == 0) {
                let job = self.next();
                producer.send(self.publish(job));
                if self.answered(producer, job)? {
                    resumed = Some(settled);
                }
            }
            if let Some(job) = self.pending
                && let Some(answer) = held.receive(Duration::ZERO)?
            {
                if answer != Packet::PubAck(id_of(job), 0) {
                    return Err(format!("what was held back was answered {answer:?}"));
                }
                self.pending = None;
                self.accepted.insert(job);
            }
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let lost = self.accepted.difference(&self.got).count();
        if lost > 0 {
            faults.push(format!(
                "{lost} of {} acknowledged jobs never came",
                self.accepted.len()
            ));
        }
        let unwanted = self.refused.intersection(&self.got).count();
        if unwanted > 0 {
            faults.push(format!("{unwanted} refused jobs came all the same"));
        }
        if self.twice > 0 {
            faults.push(format!(
                "{} jobs came again after they were settled",
                self.twice
            ));
        }
        if let Some(job) = self.pending {
            faults.push(format!("job {job}, held back, was never acknowledged"));
        }
        faults
    }
}

/// Of the numbers under way at one time, each has its own.
fn id_of(number: u64) -> PacketId {
    let id = (number % u64::from(u16::MAX)) as u16 + 1;
    PacketId::new(id).expect("it is at least 1")
}

/// A connection that is waited on.
struct Client {
    stream: TcpStream,
    codec: Codec,
    read: BytesMut,
    name: &'static str,
}

impl Client {
    fn connect(
        address: SocketAddr,
        version: Version,
        name: &'static str,
    ) -> Result<Client, String> {
        let stream = TcpStream::connect(address)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(stream)
            })
            .map_err(|error| format!("{name} cannot connect: {error}"))?;
        let mut client = Client {
            stream,
            codec: Codec::new(version),
            read: BytesMut::new(),
            name,
        };
        client.send(Packet::Connect {
            client: name.to_owned(),
            keep: false,
        });
        match client.receive(PATIENCE)? {
            Some(Packet::ConnAck { code: 0, .. }) => Ok(client),
            other => Err(format!("{name} was answered {other:?}, not CONNACK")),
        }
    }

    /// What cannot be sent is found out at the next [`Client::receive`].
    fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        self.codec.encode(packet, &mut bytes);
        _ = self.stream.write_all(&bytes);
    }

    /// The next packet; `None`: none came for so long.
    fn receive(&mut self, patience: Duration) -> Result<Option<Packet>, String> {
        let mut buffer = [0; 64 << 10];
        loop {
            let decoded = self.codec.decode(&mut self.read);
            if let Some(packet) = decoded.map_err(|error| format!("{}: {error}", self.name))? {
                return Ok(Some(packet));
            }
            // Zero would mean for ever.
            let timeout = patience.max(Duration::from_micros(1));
            (self.stream.set_read_timeout(Some(timeout)))
                .map_err(|error| format!("{}: {error}", self.name))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(format!("{}'s connection was closed", self.name)),
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("{}'s connection: {error}", self.name)),
            }
        }
    }
}

/// A file system in memory; gone when dropped.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn mount(folder: PathBuf) -> Result<Disk, String> {
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let options = format!("size={DISK_BYTES},mode=0777");
        run(as_root("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&folder))?;
        Ok(Disk { folder })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run(as_root("umount").arg(&self.folder)) {
            eprintln!("tests/crash: {error}");
        }
    }
}

fn run(command: &mut std::process::Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
