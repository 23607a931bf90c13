//! Servers as processes, on free ports, killed when dropped; and the plainest of clients.

use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tonic::transport::Channel;

/// Longest wait for anything; only a broken server makes a test wait so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn triglot(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_triglot"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

pub fn run(args: &[&str]) -> Output {
    triglot(args).output().expect("the binary runs")
}

/// A server that is killed when dropped.
pub struct Server {
    pub process: Child,
    log: BufReader<ChildStderr>,
    /// What was read of it.
    seen: Vec<Value>,
    /// Where it serves clients; known once it is ready.
    pub address: String,
}

impl Server {
    /// Starts the only member of a cluster in `dir`, on free ports, and waits until it is ready.
    pub fn start(dir: &Path, more: &[&str]) -> Server {
        let dir = dir.to_str().expect("a plain path");
        let args = [
            "--name=a",
            "--data-dir",
            dir,
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--listen-zookeeper-urls=tcp://127.0.0.1:0",
        ];
        let mut command = triglot(&args);
        command.args(more).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the binary runs");
        let log = BufReader::new(process.stderr.take().expect("piped"));
        let mut server = Server {
            process,
            log,
            seen: Vec::new(),
            address: String::new(),
        };
        server.await_line("ready to serve client requests");
        let serving = server.await_line("serving client traffic insecurely");
        server.address = serving["address"].as_str().expect("text").to_owned();
        server
    }

    /// Reads the log up to a line whose message starts so.
    pub fn await_line(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).expect("a readable log");
            let seen = &mut self.seen;
            assert!(read > 0, "the log ended before {message:?}:\n{seen:#?}");
            let event: Value = serde_json::from_str(&line).expect("a line is JSON");
            seen.push(event.clone());
            if says(&event, message) {
                return event;
            }
        }
    }

    /// The addresses in the lines read so far whose message starts so.
    pub fn addresses(&self, message: &str) -> Vec<&str> {
        let lines = self.seen.iter().filter(|event| says(event, message));
        lines
            .filter_map(|event| event["address"].as_str())
            .collect()
    }

    /// Sends bytes and reads until the server closes.
    pub fn exchange(&self, sent: &[u8]) -> String {
        exchange(&self.address, sent)
    }

    pub fn get(&self, path: &str) -> String {
        get_from(&self.address, path)
    }

    /// Asks for keys by etcd v2 with a form, or for anything else with JSON. Who asks is named as basic
    /// authentication has it.
    pub fn ask_v2(&self, who: Option<&str>, method: &str, path: &str, body: &str) -> String {
        let kind = match path.starts_with("/v2/keys") {
            true => "application/x-www-form-urlencoded",
            false => "application/json",
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        if let Some(named) = who {
            head += &format!("Authorization: Basic {named}\r\n");
        }
        let length = body.len();
        head += &format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.exchange(head.as_bytes())
    }

    /// Where gRPC's clients connect.
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::connect(self.uri()).await.expect("it listens")
    }

    pub fn signal(&mut self, signal: &str) -> ExitStatus {
        let process = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &process]).status();
        assert!(sent.expect("kill runs").success());
        self.process.wait().expect("it ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn says(event: &Value, message: &str) -> bool {
    event["msg"].as_str().expect("text").starts_with(message)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream
}

/// Sends bytes to an address and reads until it closes.
pub fn exchange(address: &str, sent: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(sent).expect("writable");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks by HTTP.
pub fn get_from(address: &str, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(address, head.as_bytes())
}

pub async fn put(kv: &mut KvClient<Channel>, key: &'static str, value: &'static str) {
    let request = PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    };
    kv.put(request).await.expect("accepted");
}

pub async fn get(kv: &mut KvClient<Channel>, key: &'static str) -> Vec<String> {
    let request = RangeRequest {
        key: key.into(),
        ..RangeRequest::default()
    };
    let answer = kv.range(request).await.expect("answered").into_inner();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    answer.kvs.iter().map(|kv| text(&kv.value)).collect()
}
