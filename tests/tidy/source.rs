//! Reading Rust source as text: what of it is code, what of that is shipped, and which paths it names.
//!
//! It is no parser: it knows comments, literals and paths, and nothing of items or types. Invariant: line
//! numbers survive every step.

/// The same text with comments and literals blanked.
pub(crate) fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_a_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let taken = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_length(rest),
            'r' if !in_a_word => raw_string_length(rest),
            '\'' => character_length(rest),
            _ => 0,
        };
        if taken == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..taken].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[taken..];
        }
    }
    out
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of the raw string that begins here, or 0 when none does.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..].find(&close).map_or(text.len(), |end| body + end + close.len())
}

/// The length of the character literal that begins here, or 0 when it is a lifetime.
fn character_length(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match inside.next() {
        Some('\\') => text[3..].find('\'').map_or(0, |end| end + 4),
        Some(c) if inside.next() == Some('\'') => c.len_utf8() + 2,
        Some(_) | None => 0,
    }
}

/// What is compiled into the product: a file of tests has nothing of it, and inline tests come last.
pub(crate) fn without_tests<'a>(path: &str, code: &'a str) -> &'a str {
    if path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/") {
        return "";
    }
    code.find("#[cfg(test)]\nmod tests {").map_or(code, |at| &code[..at])
}

/// Every path in the code with its line, groups in braces written out: `use a::{b, c::d}` names two. A
/// renaming in a group names `as` and the new name too, which no rule looks for.
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(offset) = code[at..].find(begins_name) {
        line += code[at..at + offset].matches('\n').count();
        at += offset;
        let mut branches = Vec::new();
        let rest = path_tree(&code[at..], &mut Vec::new(), &mut branches);
        found.extend(branches.into_iter().filter(|path| path.len() > 1).map(|path| (line, path)));
        let end = code.len() - rest.len();
        line += code[at..end].matches('\n').count();
        at = end;
    }
    found
}

fn begins_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// Reads one path with its groups and returns what follows it.
fn path_tree<'a>(code: &'a str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
    prefix.push(code[..end].to_owned());
    let mut rest = &code[end..];
    match rest.trim_start().strip_prefix("::").map(str::trim_start) {
        Some(after) if after.starts_with('{') => {
            rest = after[1..].trim_start();
            while let Some(next) = rest.chars().next().filter(|next| *next != '}') {
                rest =
                    if begins_name(next) { path_tree(rest, prefix, found) } else { &rest[next.len_utf8()..] };
                rest = rest.trim_start();
            }
            rest = rest.strip_prefix('}').unwrap_or(rest);
        }
        Some(after) if after.starts_with(begins_name) => rest = path_tree(after, prefix, found),
        Some(after) => {
            found.push(prefix.clone());
            rest = after;
        }
        None => found.push(prefix.clone()),
    }
    prefix.pop();
    rest
}

#[test]
fn comments_and_strings_are_no_code() {
    let code = "a /* b\n */ c \"d \\\" e\" f r#\"g \" h\"# 'i' '\\'' '\\u{1}' j::<'k>(\"\") // l\nm";
    let blanked = without_comments_and_strings(code);
    let words: Vec<&str> = blanked.split_whitespace().collect();
    assert_eq!(words.join(" "), "a c f j::<'k>( ) m");
    assert_eq!(blanked.lines().count(), code.lines().count());
}

#[test]
fn groups_of_imports_are_written_out() {
    let code = "\nuse a::{self, b::{c, d as e},\n f::*};\ng::h(i)";
    let found: Vec<String> =
        paths(code).into_iter().map(|(line, path)| format!("{line} {}", path.join("::"))).collect();
    assert_eq!(found, ["2 a::self", "2 a::b::c", "2 a::b::d", "2 a::b::as", "2 a::b::e", "2 a::f", "4 g::h"]);
}
