//! Lines that fit a terminal: broken between words, what follows the first part indented.
//!
//! Only for people who watch: a line that goes to a file or a program stays whole. Invariant: nothing but blanks
//! and line ends differs from the text.

/// By how much what follows the first part of a line is indented.
const INDENT: &str = "    ";

/// The text in lines of at most so many characters; a word that is longer has a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    text.lines().map(|line| wrapped_line(line, width)).collect::<Vec<_>>().join("\n")
}

fn wrapped_line(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let (mut lines, mut current) = (String::new(), String::new());
    let mut length = 0;
    // What stands before the first word stays there: a table's second column is no second word.
    for word in line.split_inclusive(' ') {
        let longer = length + word.trim_end().chars().count();
        if longer > width && !current.trim().is_empty() {
            lines.push_str(current.trim_end());
            lines.push('\n');
            current = INDENT.to_owned();
            length = INDENT.len();
        }
        current.push_str(word);
        length += word.chars().count();
    }
    lines.push_str(current.trim_end());
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_lines_are_broken_between_words_and_short_ones_left_alone() {
        let rows = [
            ("short", "short"),
            ("one two three four", "one two\n    three\n    four"),
            ("averyveryverylongword and", "averyveryverylongword\n    and"),
            ("  a table  row", "  a table\n    row"),
            ("two\nlines", "two\nlines"),
            ("", ""),
        ];
        for (text, expected) in rows {
            assert_eq!(wrapped(text, 10), expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_but_blanks_changes() {
        let text =
            "agent-airflow_extract_pool: verified plan 31 under head 33 (1 of 1 signatures: 45c86c84..)";
        for width in 1..120 {
            let broken = wrapped(text, width);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&broken), words(text), "{width}");
        }
    }
}
