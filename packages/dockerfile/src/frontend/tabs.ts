/** Columns of text, as Go's tabwriter lays them out with spaces; the last cell of a row isn't padded. */
export function tabs(rows: readonly (readonly string[])[], padding: number): string {
  const width = (text: string): number => Array.from(text).length;
  const columns = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, i) => {
    const cells = rows.filter((row) => i < row.length - 1).map((row) => width(row[i]!));
    const widest = Math.max(0, ...cells);
    // A column of empty cells takes no room.
    return widest === 0 ? 0 : widest + padding;
  });
  return rows
    .map((row) => {
      const cells = row.map((cell, i) =>
        i === row.length - 1 ? cell : cell + " ".repeat(widths[i]! - width(cell)),
      );
      return `${cells.join("")}\n`;
    })
    .join("");
}
