/** What the vault's documents are made of. 64-bit positions are decimal strings in JSON and `bigint` in memory. */
import { z } from 'zod';

/** A number that may pass 2^53, in JSON: a decimal string; `bigint` in memory. */
export const decimalText = z.codec(
  z.string().regex(/^(0|[1-9][0-9]{0,18})$/),
  z.bigint().nonnegative(),
  {
    decode: (text) => BigInt(text),
    encode: (value) => value.toString(),
  },
);

/** An LSN: how many records a machine's journal holds up to and with this one. 0 is "nothing yet". */
export type Lsn = bigint;

/** An LSN in JSON. */
export const lsnText = decimalText;

/** So many bytes, as lower-case hexadecimal digits. */
export const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`));

export const base64 = z.base64url();

/** Kubernetes object names, and names of disks. */
export const dnsLabel = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);

export const objectName = z.string().regex(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/);

/** What a Date can hold: anything else would throw where it is shown. */
export const timeMs = z.number().int().nonnegative().max(8_640_000_000_000_000);

/** 16 random bytes, made at enrolment; never derived from hardware. */
export const machineIdSchema = hex(16);
