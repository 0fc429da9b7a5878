//! Markdown as a terminal shows it, styled while it comes: bold, italic, headings, code and list items.

/// Styles text that comes in pieces. A run of marks is held back until the character after it is known.
#[derive(Default)]
pub struct Markdown {
    /// The mark that is repeated, how often, and whether it began its line.
    run: Option<(char, usize, bool)>,
    /// Whether nothing but blanks stands before, in this line.
    in_indent: Option<()>,
    has_begun: bool,
    bold: bool,
    italic: bool,
    heading: bool,
    code: bool,
    fence: bool,
}

impl Markdown {
    /// What the terminal is sent for a piece of text.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::new();
        for c in text.chars() {
            let at_begin = !self.has_begun || self.in_indent.is_some();
            match self.run {
                Some((mark, count, began)) if mark == c => {
                    self.run = Some((mark, count + 1, began));
                    continue;
                }
                Some(_) => self.end_run(Some(c), &mut out),
                None => {}
            }
            let is_mark = match c {
                '`' => true,
                '*' => !self.code && !self.fence,
                '#' => at_begin && !self.fence,
                _ => false,
            };
            if is_mark {
                self.run = Some((c, 1, at_begin));
            } else {
                if c == '\n' && self.heading {
                    self.heading = false;
                    self.restyle(&mut out);
                }
                out.push(c);
            }
            self.has_begun = true;
            self.in_indent = (c == '\n' || (at_begin && c == ' ')).then_some(());
        }
        out
    }

    /// What is held back, and the end of all styles.
    pub fn finish(mut self) -> String {
        let mut out = String::new();
        self.end_run(None, &mut out);
        out + "\x1b[0m"
    }

    /// Decides what a run of marks means, by the character after it.
    fn end_run(&mut self, next: Option<char>, out: &mut String) {
        let Some((mark, count, began)) = self.run.take() else { return };
        let before_blank = next.is_none_or(char::is_whitespace);
        match (mark, count) {
            ('`', 3..) if began => self.fence = !self.fence,
            ('`', _) if !self.fence => self.code = !self.code,
            ('*', 1) if began && before_blank => return out.push('•'),
            ('*', 1) if self.italic || !before_blank => self.italic = !self.italic,
            ('*', 2) if self.bold || !before_blank => self.bold = !self.bold,
            ('*', 3) if self.bold || !before_blank => (self.bold, self.italic) = (!self.bold, !self.italic),
            ('#', 1..=6) if next == Some(' ') => self.heading = true,
            _ => return out.extend(std::iter::repeat_n(mark, count)),
        }
        self.restyle(out);
    }

    fn restyle(&self, out: &mut String) {
        out.push_str("\x1b[0m");
        let styles =
            [(self.bold || self.heading, "\x1b[1m"), (self.italic, "\x1b[3m"), (self.code || self.fence, "\x1b[36m")];
        styles.iter().filter(|(is_on, _)| *is_on).for_each(|(_, style)| out.push_str(style));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&str]) -> String {
        let mut markdown = Markdown::default();
        let out: String = pieces.iter().map(|piece| markdown.push(piece)).collect();
        (out + &markdown.finish())
            .replace("\x1b[0m", "<0>")
            .replace("\x1b[1m", "<b>")
            .replace("\x1b[3m", "<i>")
            .replace("\x1b[36m", "<c>")
    }

    #[test]
    fn marks_become_styles_however_the_text_is_cut() {
        let text = "## Title\n* **one** and *two*\n```rust\n*p = a ** b; # no\n```\n2 * 3, `x*y`, é #1";
        let styled = "<0><b> Title<0>\n• <0><b>one<0> and <0><i>two<0>\n<0><c>rust\n*p = a ** b; # no\n<0>\n2 * 3, \
                      <0><c>x*y<0>, é #1<0>";
        assert_eq!(shown(&[text]), styled);
        for cut in (1..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            assert_eq!(shown(&[&text[..cut], &text[cut..]]), styled, "cut at {cut}");
        }
    }
}
