//! Recordings of what a telemetry door received: a folder with `index.jsonl`, or one packed file.
//!
//! A packed file is a gzip stream of: one line of JSON `{"format": "quorate-otlp-recording/1"}`; then for
//! each request, in the order of arrival, one line of JSON (`n`, `received_at_ms`, `path`, `content_type`,
//! `content_encoding`, `bytes`, and whatever else was noted) followed by exactly `bytes` bytes of body, as
//! they arrived. Nothing here looks into a body. Invariant: a request that is returned is complete.

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use super::{body::MAX_BODY_BYTES, otlp::METRICS_PATHS};

/// The first line of a packed recording.
const FORMAT: &str = "quorate-otlp-recording/1";

/// The longest line of a packed recording or an index, in bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// One request as a door received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    /// Its number in the recording.
    pub n: u64,
    /// When it arrived, in milliseconds after the first.
    pub received_at_ms: u64,
    /// The path it was posted to.
    pub path: String,
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// Its `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// Its body, still compressed.
    pub body: Vec<u8>,
    /// What else whoever recorded it noted, such as `chunked`; nothing here reads it.
    pub notes: serde_json::Map<String, serde_json::Value>,
}

impl RecordedRequest {
    /// Whether it was posted to a path where OTLP metrics are taken.
    #[must_use]
    pub fn is_metrics(&self) -> bool {
        METRICS_PATHS.contains(&self.path.as_str())
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no recording.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

const CUT: &str = "the recording is cut: its end is missing";

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
}

/// A line of a packed recording. A folder's index has the same fields and names the body's file.
#[derive(Serialize, Deserialize)]
struct Line {
    n: u64,
    received_at_ms: u64,
    path: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    bytes: usize,
    #[serde(default, skip_serializing)]
    file: Option<String>,
    #[serde(flatten)]
    notes: serde_json::Map<String, serde_json::Value>,
}

impl Line {
    fn with_body(self, body: Vec<u8>) -> RecordedRequest {
        RecordedRequest {
            n: self.n,
            received_at_ms: self.received_at_ms,
            path: self.path,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            body,
            notes: self.notes,
        }
    }
}

/// Reads a recording: a folder with `index.jsonl`, or a packed file.
///
/// # Errors
/// [`RecordingError`] names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<RecordedRequest>, RecordingError> {
    if path.is_dir() { read_folder(path) } else { read_packed(path) }
}

fn read_folder(folder: &Path) -> Result<Vec<RecordedRequest>, RecordingError> {
    let index = folder.join("index.jsonl");
    let text = std::fs::read_to_string(&index).map_err(in_file(&index))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let request = |(number, line): (usize, &str)| {
        let at_line = |why: String| malformed(&index, format!("line {}: {why}", number + 1));
        let line: Line = serde_json::from_str(line).map_err(|error| at_line(error.to_string()))?;
        let name = line.file.clone().ok_or_else(|| at_line("`file` is missing".to_owned()))?;
        if name.contains(['/', '\\']) || name == ".." {
            return Err(at_line(format!("file {name:?} is outside the folder")));
        }
        let file = folder.join(name);
        let body = std::fs::read(&file).map_err(in_file(&file))?;
        Ok(line.with_body(body))
    };
    lines.map(request).collect()
}

fn read_packed(path: &Path) -> Result<Vec<RecordedRequest>, RecordingError> {
    let file = File::open(path).map_err(in_file(path))?;
    parse(path, BufReader::new(file))
}

/// The requests of a packed file; `path` is its name in errors.
///
/// # Errors
/// [`RecordingError`] says what is wrong with it.
pub fn parse(path: &Path, mut packed: impl BufRead) -> Result<Vec<RecordedRequest>, RecordingError> {
    let refused = |why: &str| malformed(path, why.to_owned());
    if packed.fill_buf().map_err(in_file(path))?.is_empty() {
        return Err(refused("the file is empty"));
    }
    let mut reader = BufReader::new(MultiGzDecoder::new(packed));
    let header = read_line(&mut reader, path)?.ok_or_else(|| refused("the file is empty"))?;
    match serde_json::from_slice(&header) {
        Ok(Header { format }) if format == FORMAT => {}
        Ok(_) | Err(_) => return Err(refused(&format!("it is no recording of format {FORMAT}"))),
    }
    let mut requests = Vec::new();
    while let Some(line) = read_line(&mut reader, path)? {
        let at_request = |why: String| malformed(path, format!("request {}: {why}", requests.len() + 1));
        let line: Line = serde_json::from_slice(&line).map_err(|error| at_request(error.to_string()))?;
        if line.bytes > MAX_BODY_BYTES {
            return Err(at_request(format!(
                "{} bytes of body; at most {MAX_BODY_BYTES} are allowed",
                line.bytes
            )));
        }
        let mut body = vec![0; line.bytes];
        reader.read_exact(&mut body).map_err(|error| {
            let is_cut = error.kind() == ErrorKind::UnexpectedEof;
            at_request(if is_cut { CUT.to_owned() } else { error.to_string() })
        })?;
        requests.push(line.with_body(body));
    }
    Ok(requests)
}

/// A line without its end; `None` at the end of the file.
fn read_line(reader: &mut impl BufRead, path: &Path) -> Result<Option<Vec<u8>>, RecordingError> {
    let mut line = Vec::new();
    let read = reader.take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(|error| {
        // Whoever passes some other file should read what the command takes, not what gzip expected.
        if error.kind() == ErrorKind::InvalidInput {
            malformed(path, "it is neither a packed recording nor a folder with index.jsonl".to_owned())
        } else if error.kind() == ErrorKind::UnexpectedEof {
            malformed(path, CUT.to_owned())
        } else {
            RecordingError::File { path: path.to_owned(), source: error }
        }
    })?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(malformed(path, format!("a line of {read} bytes does not end"))),
    }
}

/// Writes requests as one packed file's bytes.
///
/// # Errors
/// Those of the writer.
pub fn pack(requests: &[RecordedRequest], writer: impl Write) -> std::io::Result<()> {
    let mut writer = GzEncoder::new(writer, Compression::best());
    serde_json::to_writer(&mut writer, &Header { format: FORMAT.to_owned() })?;
    writer.write_all(b"\n")?;
    for request in requests {
        let line = Line {
            n: request.n,
            received_at_ms: request.received_at_ms,
            path: request.path.clone(),
            content_type: request.content_type.clone(),
            content_encoding: request.content_encoding.clone(),
            bytes: request.body.len(),
            file: None,
            notes: request.notes.clone(),
        };
        serde_json::to_writer(&mut writer, &line)?;
        writer.write_all(b"\n")?;
        writer.write_all(&request.body)?;
    }
    writer.finish().map(drop)
}

fn in_file(path: &Path) -> impl FnOnce(std::io::Error) -> RecordingError + use<> {
    let path = path.to_owned();
    move |source| RecordingError::File { path, source }
}

fn malformed(path: &Path, why: String) -> RecordingError {
    RecordingError::Malformed { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::{RecordedRequest, pack, read};

    fn requests() -> Vec<RecordedRequest> {
        let request = |n: u64, body: &[u8], content_encoding: Option<&str>| RecordedRequest {
            n,
            received_at_ms: n * 10,
            path: "/v1/metrics".to_owned(),
            content_type: Some("application/json".to_owned()),
            content_encoding: content_encoding.map(str::to_owned),
            body: body.to_vec(),
            notes: serde_json::Map::from_iter([("chunked".to_owned(), (n == 2).into())]),
        };
        vec![request(1, b"{}\n", None), request(2, b"", Some("gzip")), request(3, &[0, 10, 13, 255], None)]
    }

    #[test]
    fn a_packed_recording_reads_back_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("packed.gz");
        let mut bytes = Vec::new();
        pack(&requests(), &mut bytes).expect("memory can be written");
        std::fs::write(&file, &bytes).expect("the file can be written");
        assert_eq!(read(&file).expect("it is a recording"), requests());

        std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("the file can be written");
        let cut = read(&file).expect_err("half of it is missing").to_string();
        assert!(cut.contains("packed.gz: ") && cut.ends_with(super::CUT), "{cut}");
        std::fs::write(&file, b"").expect("the file can be written");
        let empty = read(&file).expect_err("there is nothing in it").to_string();
        assert!(empty.ends_with("packed.gz: the file is empty"), "{empty}");
    }

    #[test]
    fn what_is_no_recording_is_refused_with_its_name() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("notes.txt");
        std::fs::write(&file, "not a recording\n").expect("the file can be written");
        let error = read(&file).expect_err("it is no recording").to_string();
        assert!(error.contains("notes.txt") && error.contains("neither a packed recording"), "{error}");

        let error = read(&folder.path().join("missing")).expect_err("there is no such file").to_string();
        assert!(error.contains("missing"), "{error}");

        let index = r#"{"n":1,"received_at_ms":0,"path":"/","content_type":null,"content_encoding":null,"bytes":1,"file":"../x"}"#;
        std::fs::write(folder.path().join("index.jsonl"), index).expect("the file can be written");
        let error = read(folder.path()).expect_err("the file is outside").to_string();
        assert!(error.contains("line 1") && error.contains("outside"), "{error}");
    }
}
