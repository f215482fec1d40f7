//! Rows in columns, for a terminal.

/// A table under a title; columns are as wide as they have to be.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns from here on are numbers, and end at the right.
    numbers: std::ops::Range<usize>,
}

impl Table {
    /// The first row names the columns, those in `numbers` are numbers.
    pub(super) fn new(head: &[&str], numbers: std::ops::Range<usize>) -> Table {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        Table {
            rows: vec![head],
            numbers,
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Nothing where there is nothing but the head.
    pub(super) fn text(&self) -> String {
        if self.rows.len() < 2 {
            return String::new();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(
                |(column, (cell, width))| match self.numbers.contains(&column) {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                },
            );
            let line = cells.collect::<Vec<String>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
