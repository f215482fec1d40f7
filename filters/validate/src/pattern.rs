//! Patterns for whole values: `*` is any text, the empty one included, `?` one character, `#` one digit, and everything else
//! stands for itself; so does what follows a backslash.

/// A pattern.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text,
    Character,
    Digit,
    Just(char),
}

impl Pattern {
    pub(crate) fn parse(written: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut characters = written.chars();
        while let Some(character) = characters.next() {
            parts.push(match character {
                '*' => Part::Text,
                '?' => Part::Character,
                '#' => Part::Digit,
                '\\' => match characters.next() {
                    Some(next) => Part::Just(next),
                    None => return Err("nothing follows the backslash at its end".into()),
                },
                other => Part::Just(other),
            });
        }
        Ok(Self(parts))
    }

    /// Whether it is like the whole text. The last `*` alone has to be tried again, so this takes at most one pass over the
    /// text for each part.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (mut parts, mut rest) = (self.0.as_slice(), text);
        let mut retry: Option<(&[Part], &str)> = None;
        loop {
            let mut after = rest.chars();
            let next = after.next();
            match (parts.split_first(), next) {
                (None, None) => return true,
                (Some((Part::Text, others)), _) => {
                    retry = Some((others, rest));
                    parts = others;
                }
                (Some((part, others)), Some(character)) if part.takes(character) => {
                    parts = others;
                    rest = after.as_str();
                }
                _ => {
                    // The `*` takes one character more.
                    let Some((others, from)) = retry else {
                        return false;
                    };
                    let mut from = from.chars();
                    if from.next().is_none() {
                        return false;
                    }
                    retry = Some((others, from.as_str()));
                    (parts, rest) = (others, from.as_str());
                }
            }
        }
    }
}

impl Part {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Text => false,
            Self::Character => true,
            Self::Digit => character.is_ascii_digit(),
            Self::Just(just) => *just == character,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn signs_stand_for_texts_characters_and_digits() {
        let yes = [
            ("+49*", "+4930"),
            ("+49*", "+49"),
            ("###", "101"),
            ("*#", "a1"),
            ("?x?", "üxü"),
            ("*", ""),
            ("a*b*c", "a-b-b-c"),
            ("*ab*ab", "abxab"),
            (r"\*##", "*98"),
            (r"\\?", r"\a"),
            ("", ""),
        ];
        for (pattern, text) in yes {
            assert!(
                Pattern::parse(pattern).unwrap().matches(text),
                "`{pattern}` is like `{text}`"
            );
        }
        let no = [
            ("+49*", "49"),
            ("###", "10"),
            ("###", "1010"),
            ("###", "10a"),
            ("*#", "a"),
            ("?", ""),
            ("?", "ab"),
            ("", "a"),
            ("*ab*ab", "ab"),
            (r"\*##", "998"),
        ];
        for (pattern, text) in no {
            assert!(
                !Pattern::parse(pattern).unwrap().matches(text),
                "`{pattern}` is not like `{text}`"
            );
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = Pattern::parse(&"*a".repeat(50)).unwrap();
        assert!(!pattern.matches(&("a".repeat(10_000) + "b")));
    }
}
