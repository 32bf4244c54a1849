//! One HTTP request to a process on this machine. It is no client for anything else: one connection a
//! request, and the whole answer within a fixed time.
//!
//! Invariant: a process that is gone or stands still is `None`, not a wait without end.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long connecting, and each read and write, may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Fetches a path; the body, when the answer is a success.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<Vec<u8>> {
    success(exchange(address, &format!("GET {path} HTTP/1.1\r\n"), &[])?)
}

fn success((status, body): (u16, Vec<u8>)) -> Option<Vec<u8>> {
    (200..300).contains(&status).then_some(body)
}

/// Posts JSON to a path; the answer's body, when it is a success.
pub(crate) fn post_json(address: SocketAddr, path: &str, body: &[u8]) -> Option<Vec<u8>> {
    success(post(address, path, body)?)
}

/// Posts JSON to a path; the answer's status and body.
pub(crate) fn post(address: SocketAddr, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head = format!(
        "POST {path} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    exchange(address, &head, body)
}

fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    let mut request = format!("{head}host: {address}\r\nconnection: close\r\n\r\n").into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    let status = std::str::from_utf8(answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?;
    Some((status.parse().ok()?, body))
}
