/** Writes golden segments that are not there yet; never replaces one. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { inlineCodec } from '../../../dataplane/journal/segmentCodec.ts';
import { encodeSegment } from '../../../dataplane/journal/segmentWriter.ts';
import { goldenSegments } from './samples.ts';

for (const { name, header, dataKey, records } of goldenSegments) {
  const { bytes } = await encodeSegment({ header, dataKey, records, codec: inlineCodec });
  writeFileSync(path.join(import.meta.dirname, 'v1', `${name}.seg`), bytes, { flag: 'wx' });
}
