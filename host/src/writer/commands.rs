//! Commands to Redis, packed as it reads them: an array of bulk strings each, one after the other, to be written at once. Pure.
//!
//! The words of an entry are copied once, from the decision into what the socket takes. The pipeline of the `redis` crate copies them
//! three times (into a command, into a buffer of all commands, into the buffer of its codec), which is most of a writer's time.

/// Some commands, in order.
#[derive(Debug, Default)]
pub(super) struct Commands {
    packed: Vec<u8>,
    count: usize,
}

impl Commands {
    /// None yet, with room for so many bytes of them.
    pub(super) fn with_capacity(bytes: usize) -> Commands {
        Commands {
            packed: Vec::with_capacity(bytes),
            count: 0,
        }
    }

    /// Appends a command of these words.
    pub(super) fn add(&mut self, words: &[&[u8]]) {
        self.begin(words.len());
        words.iter().for_each(|word| self.word(word));
    }

    /// Begins a command of so many words; they follow one by one.
    pub(super) fn begin(&mut self, words: usize) {
        self.count += 1;
        self.head(b'*', words);
    }

    /// The next word of the command that was begun.
    pub(super) fn word(&mut self, word: &[u8]) {
        self.head(b'$', word.len());
        self.packed.extend_from_slice(word);
        self.packed.extend_from_slice(b"\r\n");
    }

    fn head(&mut self, kind: u8, number: usize) {
        self.packed.push(kind);
        let mut digits = itoa::Buffer::new();
        self.packed
            .extend_from_slice(digits.format(number).as_bytes());
        self.packed.extend_from_slice(b"\r\n");
    }

    /// How many there are, and so how many replies.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Their bytes.
    pub(super) fn packed(&self) -> &[u8] {
        &self.packed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::Commands;

    proptest! {
        #[test]
        fn they_are_what_the_redis_crate_makes_of_them(
            commands in prop::collection::vec(prop::collection::vec(any::<Vec<u8>>(), 1..5), 0..5),
        ) {
            let (mut ours, mut theirs) = (Commands::default(), redis::Pipeline::new());
            for words in &commands {
                let command = theirs.cmd(&String::from_utf8_lossy(&words[0]));
                words[1..].iter().for_each(|word| {
                    command.arg(word.as_slice());
                });
                let name = String::from_utf8_lossy(&words[0]);
                let mut all = vec![name.as_bytes()];
                all.extend(words[1..].iter().map(Vec::as_slice));
                ours.add(&all);
            }
            prop_assert_eq!(ours.packed(), theirs.get_packed_pipeline());
            prop_assert_eq!(ours.len(), commands.len());
        }
    }
}
