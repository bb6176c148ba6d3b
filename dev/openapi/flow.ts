// Holds and pays with the generated types. It is only type-checked: each refusal has the fields of its type.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type SeatsTaken = components["schemas"]["SeatsTakenProblem"];

export async function buy(baseUrl: string, token: string, seatId: number): Promise<string | SeatsTaken> {
  const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
  const held = await client.POST("/customer/book/{seatId}", { params: { path: { seatId } } });
  if (held.error) {
    if (held.error.type === "urn:rowlock:problem:seats-taken") {
      const seatIds: number[] = held.error.seatIds;
      return { ...held.error, seatIds };
    }
    throw new Error(held.error.detail);
  }
  const path = { reservationId: held.data.reservationId };
  const paid = await client.PUT("/customer/pay/{reservationId}", { params: { path } });
  if (paid.error) {
    const until: string | undefined =
      paid.error.type === "urn:rowlock:problem:hold-expired" ? paid.error.expiresAt : undefined;
    throw new Error(until ?? paid.error.detail);
  }
  const state: "HELD" | "CONFIRMED" | "EXPIRED" | "CANCELLED" = paid.data.state;
  return state;
}
