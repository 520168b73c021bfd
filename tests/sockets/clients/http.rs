//! A client of the HTTP port: hyper's.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::http::response::Parts;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// What was answered.
pub struct Answer {
    pub status: u16,
    pub head: Parts,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body, in JSON; null if there is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match self.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&self.body)
                .unwrap_or_else(|error| panic!("{error}: {}", self.text())),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.head.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or_default())
    }

    /// The same, if it was done.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.text()
        );
        self.json()
    }

    /// The sentence of a problem document, with this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        problem["detail"].as_str().expect("a sentence").to_owned()
    }
}

/// Somebody who asks, each time on a connection of its own.
#[derive(Clone)]
pub struct Http {
    pub address: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Http {
    /// Somebody whom nobody knows.
    pub fn new(address: SocketAddr) -> Http {
        Http {
            address,
            headers: Vec::new(),
        }
    }

    /// With the broker's own token, which allows everything.
    pub fn of(broker: &rotamq::Broker) -> Http {
        let address = broker.http_address().expect("it has such a port");
        Http::new(address).with_token(&broker.http_token().expect("it lends one"))
    }

    /// The same, who asks another broker.
    pub fn at(mut self, address: SocketAddr) -> Http {
        self.address = address;
        self
    }

    pub fn with_token(self, token: &str) -> Http {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    pub fn with(mut self, name: &str, value: &str) -> Http {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, Some(body))
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, Some(body))
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PATCH, path, Some(body))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header("Host", self.address.to_string());
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            if body.is_some() {
                request = request.header("Content-Type", "application/json");
            }
            let body = body.map_or_else(String::new, Value::to_string);
            let request = request.body(Full::new(Bytes::from(body))).unwrap();
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            Answer {
                status: head.status.as_u16(),
                head,
                body,
            }
        })
    }
}
