//! The three verifiers, each as its users call it.
//!
//! Invariant: a verifier that does not give a clear verdict fails the test.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use quorate::execute::offline::verify_documents;

use super::fixture::{head_of, plan, root, sealed_head, sealed_plan, sealed_root};
use quorate::knowledge::head::Mode;

/// Documents that are verified together, as envelopes' JSON.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    pub(crate) root: Vec<u8>,
    pub(crate) plan: Vec<u8>,
    pub(crate) head: Option<Vec<u8>>,
}

impl Documents {
    /// A root, a plan and a head that pass.
    pub(crate) fn good() -> Self {
        Self {
            root: sealed_root(&root()),
            plan: sealed_plan(&plan()),
            head: Some(sealed_head(&head_of(7, Mode::Act, &plan()))),
        }
    }
}

/// Whether the library accepts them.
pub(crate) fn library(documents: &Documents) -> bool {
    verify_documents(&documents.root, &documents.plan, documents.head.as_deref()).is_ok()
}

/// Files of many documents; what several share is written once.
#[derive(Debug)]
pub(crate) struct Files {
    folder: tempfile::TempDir,
    written: Vec<(Vec<u8>, PathBuf)>,
    next: usize,
}

/// How many recent files are looked through for equal content.
const SHARED: usize = 4;

impl Files {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut files = Self { folder, written: Vec::new(), next: 0 };
        // The ones that most cases share come first, and so stay.
        files.paths(&Documents::good());
        files
    }

    fn path(&mut self, bytes: &[u8]) -> PathBuf {
        if let Some((_, path)) = self.written.iter().find(|(known, _)| known == bytes) {
            return path.clone();
        }
        let path = self.folder.path().join(format!("{}.json", self.next));
        self.next += 1;
        fs::write(&path, bytes).expect("the folder is writable");
        if self.written.len() == SHARED {
            self.written.pop();
        }
        self.written.push((bytes.to_vec(), path.clone()));
        path
    }

    fn paths(&mut self, documents: &Documents) -> Vec<PathBuf> {
        let mut paths = vec![self.path(&documents.root), self.path(&documents.plan)];
        let head = documents.head.as_ref().map(|head| self.path(head));
        paths.extend(head);
        paths
    }

    /// Whether `quorate verify` accepts them.
    pub(crate) fn command(&mut self, documents: &Documents) -> bool {
        let paths = self.paths(documents);
        let flags = ["--root", "--plan", "--head"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.arg("verify").stdin(Stdio::null());
        for (flag, path) in flags.iter().zip(&paths) {
            command.arg(flag).arg(path);
        }
        let output = command.output().expect("the binary starts");
        match output.status.code() {
            Some(0) => true,
            Some(4) => false,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Whether `examples/verify.py` accepts each of them. One process runs the script again and again.
    pub(crate) fn python(&mut self, all: &[Documents]) -> Vec<bool> {
        let mut lines = String::new();
        for documents in all {
            let paths: Vec<_> = self.paths(documents).iter().map(|path| path.display().to_string()).collect();
            lines.push_str(&serde_json::to_string(&paths).expect("paths here are UTF-8"));
            lines.push('\n');
        }
        let told = run_python(AGAIN_AND_AGAIN, &lines);
        let verdict = |code: &str| match code {
            "0" => true,
            "4" => false,
            other => panic!("the script ended with {other}"),
        };
        told.lines().map(verdict).collect()
    }
}

/// Runs the script named in `argv[1]` once a line of standard input, which holds its arguments as JSON.
const AGAIN_AND_AGAIN: &str = r#"
import contextlib, io, json, sys
script = compile(open(sys.argv[1]).read(), sys.argv[1], "exec")
for line in sys.stdin:
    sys.argv, code, silence = ["verify.py", *json.loads(line)], 0, io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try: exec(script, {"__name__": "__main__"})
        except SystemExit as end: code = end.code
    said = silence.getvalue()
    assert said.startswith("refused: " if code else "verified: "), said
    assert "ModuleNotFoundError" not in said and "No module" not in said, "python3-cryptography is missing (scripts/setup test)"
    print(code)
"#;

/// Runs Python code with the path of `examples/verify.py` as its argument; its standard output.
pub(crate) fn run_python(code: &str, input: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify.py");
    let mut child = Command::new("python3")
        .args(["-I", "-c", code])
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is installed (scripts/setup test)");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let input = input.to_owned();
    // Written beside the reading, or both sides would wait for a full pipe.
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it is a child");
    let written = writing.join().expect("it does not panic");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    written.expect("it reads all of its input");
    String::from_utf8(output.stdout).expect("it writes UTF-8")
}

/// All three verifiers give this verdict on each of the documents.
pub(crate) fn assert_all(expected: bool, cases: &[(String, Documents)]) {
    let mut files = Files::new();
    let documents: Vec<Documents> = cases.iter().map(|(_, documents)| documents.clone()).collect();
    let python = files.python(&documents);
    assert_eq!(python.len(), cases.len());
    for ((what, documents), python) in cases.iter().zip(python) {
        let verdicts = (library(documents), files.command(documents), python);
        assert_eq!(verdicts, (expected, expected, expected), "{what}: library, command, script");
    }
}
