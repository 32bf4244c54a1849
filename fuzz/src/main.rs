//! Writes the seeds into the corpora: `quorate-fuzz FOLDER`. Invariant: it writes `seed-*.bin` and nothing else, and
//! takes away what it wrote earlier and no longer would.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("usage: quorate-fuzz FOLDER")?.into();
    for target in quorate_fuzz::TARGETS {
        let corpus = folder.join(target.name);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        for entry in fs::read_dir(&corpus)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-")) {
                fs::remove_file(path)?;
            }
        }
    }
    for (target, name, bytes) in quorate_fuzz::seeds::all() {
        let path = folder.join(target).join(format!("seed-{name}.bin"));
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
