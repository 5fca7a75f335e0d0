//! Runs the binary and talks to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub const ANY_PORT: &str = "server.listen=[{ address = \"127.0.0.1:0\" }]";

/// `myelin` in a directory of its own, with nothing of the caller's environment that would configure it.
pub fn myelin(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command.current_dir(directory).args(arguments).stdin(Stdio::null());
    let configured = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("MYELIN__"));
    for name in configured {
        command.env_remove(name);
    }
    command
}

/// What a command that ends by itself said.
pub struct Said {
    pub success: bool,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { success: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }
}

pub fn run(directory: &Path, arguments: &[&str]) -> Said {
    myelin(directory, arguments).output().expect("it runs").into()
}

/// The same with something on standard input.
pub fn run_with_input(directory: &Path, arguments: &[&str], input: &str) -> Said {
    let mut command = myelin(directory, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends").into()
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub summary: String,
    pub address: String,
}

impl Server {
    /// Starts `serve` and reads its summary to the end.
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::spawn(myelin(directory, &Self::arguments(arguments)))
    }

    pub fn arguments<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        ["serve", "--set", ANY_PORT].iter().chain(arguments).copied().collect()
    }

    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut summary = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        while !summary.contains("stops the server") {
            if lines.read_line(&mut summary).expect("UTF-8") == 0 {
                let mut err = String::new();
                child.stderr.take().expect("piped").read_to_string(&mut err).expect("UTF-8");
                panic!("the server ended: {summary}{err}");
            }
        }
        let (_, address) = summary.split_once("://").expect("an address");
        let address = address.split_whitespace().next().expect("an address").to_owned();
        Self { child, summary, address }
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        request(&self.address, "GET", path, None, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        request(&self.address, "POST", path, None, Some(body))
    }

    /// A request of somebody who is signed in; it must succeed.
    pub fn call(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = request(&self.address, method, path, Some(token), body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// `kill -9`
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
    }

    /// Waits for the end; what it logged and how it ended.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
        (self.child.wait().expect("it ends"), log)
    }

    pub fn stop(self) -> String {
        self.terminate();
        let (status, log) = self.wait();
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One request on a connection of its own.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> (u16, Value) {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let headers = format!("{authorization}Content-Type: application/json\r\n");
    let body = body.map(Value::to_string).unwrap_or_default();
    let (status, body) = exchange(address, method, path, &headers, body.as_bytes());
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The same in bytes; each of the `headers` ends with a line break.
pub fn exchange(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("connected");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    let head = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("a head");
    let body = answer.split_off(head + 4);
    let head = String::from_utf8(answer).expect("UTF-8");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body)
}
