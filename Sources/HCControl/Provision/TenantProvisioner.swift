package import HCCore
import HCCrypto
package import HCIO
import HCPostgres
package import HCTenancy

/// Opens a clinic: places it, makes its keys, its host, its row on the shard and its owner's account.
///
/// One operation with a commit point. Until the placement is `serving` nothing of the clinic can be seen, and
/// any failure takes back what was made. A process that is killed leaves a clinic in state `provisioning`
/// that nobody can reach; giving the command again removes the remains and starts afresh. Two commands for
/// one slug take turns: a session lock in the control database is held throughout, and dies with its process.
///
/// It also dies with its connection, and the process may go on. So nothing rests on it but good manners: a creation
/// is known by its own id, and its state, which is `provisioning`, is changed once, to `active` by who opens it or to
/// `deleting` by who takes it away. Whoever comes second finds it otherwise, in the transaction in which he would change it:
/// who would open what is taken away removes what he has made on the shard since, and who would take away what is open
/// leaves it and says that the slug is taken.
@LoopActor
package struct TenantProvisioner {
    package struct Request: Sendable {
        package var slug: Slug
        package var name: String
        package var tier: String
        /// Nil: the policy chooses the shard with most room.
        package var shard: String?
        package var ownerEmail: String
        package var timeZone: String

        package init(
            slug: Slug, name: String, tier: String, shard: String?, ownerEmail: String,
            timeZone: String
        ) {
            self.slug = slug
            self.name = name
            self.tier = tier
            self.shard = shard
            self.ownerEmail = ownerEmail
            self.timeZone = timeZone
        }
    }

    /// What the rooms above do for a new clinic.
    package struct Hooks {
        /// Writes the clinic's settings and its owner's account; given again it changes nothing.
        package var populate:
            @LoopActor (TenantContext, Request, _ password: Sensitive<String>, Deadline)
                async throws -> Void
        /// Asks the running server for the clinic, as its owner. Nil: no server answers at the public URL.
        package var smoke:
            @LoopActor (_ host: String, Request, _ password: Sensitive<String>) async throws ->
                String?

        package init(
            populate:
                @escaping @LoopActor (TenantContext, Request, Sensitive<String>, Deadline)
                async throws ->
                Void,
            smoke: @escaping @LoopActor (String, Request, Sensitive<String>) async throws -> String?
        ) {
            self.populate = populate
            self.smoke = smoke
        }
    }

    package struct Outcome: Sendable {
        package var tenant: TenantSummary
        package var ownerEmail: String
        /// Shown once; only its hash is kept.
        package var ownerPassword: Sensitive<String>
        /// Nil when no server was there to ask.
        package var smoke: String?
    }

    let plane: ControlPlane
    let hooks: Hooks

    package init(plane: ControlPlane, hooks: Hooks) {
        self.plane = plane
        self.hooks = hooks
    }

    // MARK: The plan

    /// What `create` would do, without doing it.
    /// - Throws: `ControlError` for everything that can be known beforehand.
    package func plan(_ request: Request) async throws -> Shard {
        guard !request.name.isEmpty, request.name.count <= 200,
            !request.name.unicodeScalars.contains(where: {
                $0.properties.generalCategory == .control
            })
        else {
            throw ControlError(
                .invalid, code: "bad-name",
                "a clinic's name has 1 to 200 characters and no control characters")
        }
        guard TenantProvisioner.isEmailAddress(request.ownerEmail) else {
            throw ControlError(
                .invalid, code: "bad-email", "'\(request.ownerEmail)' is no e-mail address",
                remedy: "Give the owner's address with --owner-email.")
        }
        let tiers = try await TierRegistry(plane: plane).list()
        guard let tier = tiers.first(where: { $0.name == request.tier }) else {
            throw ControlError(
                .invalid, code: "tier-unknown", "there is no tier '\(request.tier)'",
                remedy: tiers.isEmpty
                    ? "Apply tenants/tiers.json first: hc-admin tier apply"
                    : "Tiers: " + tiers.map(\.name).joined(separator: ", "))
        }
        let present = try await TenantRegistry(plane: plane).present(request.slug.text)
        if let present,
            try await TenantEraser(plane: plane).remains(of: request.slug.text) != present.id
        {
            throw ControlError(
                .conflict, code: "slug-taken",
                "there is a clinic '\(request.slug)' already (\(present.state))",
                remedy: "Choose another slug, or see 'hc-admin tenant show \(request.slug)'.")
        }
        let shard = try await chooseShard(
            for: request, weight: TierRegistry.weight(of: tier))
        try await requireMeans(on: shard)
        return shard
    }

    /// What would fail half-way fails here, and by the name of the file: every connection that the clinic's making
    /// and serving needs, and the master key, which must be the one under which the other clinics' keys are.
    private func requireMeans(on shard: Shard) async throws {
        _ = try await plane.control(.router)
        for role in [ControlPlane.Role.owner, .app] {
            _ = try await plane.shard(reference: shard.reference, role)
        }
        guard
            let other = try await TenantRegistry(plane: plane).list(state: "active", limit: 1).first
        else { return }
        do {
            try await plane.proveKeys(of: other.id)
        } catch let error as ControlError {
            throw error
        } catch {
            throw ControlError(
                .refused, code: "wrong-master-key",
                "the master key \(plane.configuration.masterKeyFile) does not open the keys of '\(other.slug)'",
                remedy: "Put the key there with which this platform's clinics were made.",
                cause: error)
        }
    }

    private func chooseShard(for request: Request, weight: Int) async throws -> Shard {
        let shards = try await ShardRegistry(plane: plane).list()
        if let id = request.shard {
            guard let shard = shards.first(where: { $0.id == id }) else {
                throw ShardRegistry.unknown(id)
            }
            guard shard.state == "open" else {
                throw ControlError(
                    .refused, code: "shard-closed",
                    "shard \(id) is \(shard.state) and takes no new clinics",
                    remedy: "Leave --shard out to have one chosen.")
            }
            return shard
        }
        let candidates = shards.map {
            PlacementPolicy.Candidate(
                id: $0.id, isOpen: $0.state == "open" && $0.weight > 0,
                capacity: $0.capacity * $0.weight / 100, used: $0.used, tenants: $0.tenants)
        }
        guard let chosen = PlacementPolicy.choose(from: candidates, weight: weight),
            let shard = shards.first(where: { $0.id == chosen.id })
        else {
            throw ControlError(
                .refused, code: "no-room",
                shards.isEmpty ? "there is no shard" : "no open shard has room for another clinic",
                remedy: "Add one: hc-admin shard add ID")
        }
        return shard
    }

    // MARK: Create

    /// - Throws: `ControlError`; then nothing of the clinic is left, unless the error says so.
    package func create(_ request: Request) async throws -> Outcome {
        let control = try await plane.control()
        try await lock(request.slug, on: control)
        let shard = try await plan(request)
        try await removeRemains(of: request.slug)

        var random = SystemRandom()
        let tenant = TenantID.make(at: plane.clocks.now(), using: &random)
        let password = Sensitive(TenantProvisioner.makePassword())
        let host = "\(request.slug).\(plane.configuration.baseDomain)"
        do {
            try await reserve(request, tenant: tenant, shard: shard, host: host)
            try FaultPoint.reach("provision.after-reserve")
            try await enterShard(tenant, shard)
            try FaultPoint.reach("provision.after-shard")
            let context = try await plane.context(tenant: tenant)
            try await hooks.populate(context, request, password, plane.deadline)
            try FaultPoint.reach("provision.after-populate")
            try await open(request, tenant: tenant, shard: shard)
            try FaultPoint.reach("provision.after-open")
            let smoke = try await hooks.smoke(host, request, password)
            return Outcome(
                tenant: try await TenantRegistry(plane: plane).find(request.slug.text),
                ownerEmail: request.ownerEmail, ownerPassword: password, smoke: smoke)
        } catch {
            try await undo(tenant, on: shard, slug: request.slug, because: error)
            throw error
        }
    }

    /// The clinic exists in the control database, reachable by nobody: `provisioning`, its placement `opening`.
    private func reserve(_ request: Request, tenant: TenantID, shard: Shard, host: String)
        async throws
    {
        let keys = try plane.makeKeys(for: tenant)
        var queries = [
            Query(
                """
                INSERT INTO tenant (id, slug, name, tier, state, time_zone)
                VALUES ($1, $2, $3, $4, 'provisioning', $5)
                """,
                [
                    .id(tenant), .text(request.slug.text), .text(request.name), .text(request.tier),
                    .text(request.timeZone),
                ]),
            // Nobody drains the shard between the choice and this.
            Query(
                """
                INSERT INTO placement (tenant_id, shard_id, epoch, state)
                SELECT $1, id, 1, 'opening' FROM shard WHERE id = $2 AND state = 'open' FOR SHARE
                """, [.id(tenant), .text(shard.id)]),
            Query(
                """
                INSERT INTO domain (host, tenant_id, kind, verified_at) VALUES ($1, $2, 'platform', now())
                """, [.text(host), .id(tenant)]),
        ]
        for key in keys {
            queries.append(
                Query(
                    """
                    INSERT INTO tenant_key
                        (tenant_id, purpose, version, master_key_id, wrapping_version, wrapped)
                    VALUES ($1, $2, $3, $4, $5, $6)
                    """,
                    [
                        .id(tenant), .text(key.purpose.rawValue), .int4(Int32(key.version)),
                        .optional(key.masterKeyID),
                        .optional(key.wrappingVersion.map { Int32($0) }),
                        .bytes(key.wrapped),
                    ]))
        }
        queries.append(
            plane.audit(
                "tenant.create", subject: request.slug.text,
                detail: [
                    "tenantId": .string("\(tenant.uuid)"), "shard": .string(shard.id),
                    "tier": .string(request.tier), "name": .string(request.name),
                ]))
        do {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                let results = try await transaction.execute(queries)
                guard results[1].affectedRows == 1 else {
                    throw ControlError(
                        .refused, code: "shard-closed",
                        "shard \(shard.id) was closed to new clinics just now",
                        remedy: "Give the command again.")
                }
                _ = try await transaction.execute(final: [Query("SELECT")])
            }
        } catch let error as PostgresError {
            if error.sqlstate == .uniqueViolation {
                throw ControlError(
                    .conflict, code: "slug-taken",
                    "the slug '\(request.slug)' or the host \(host) is taken",
                    remedy: "Choose another slug.")
            }
            throw ControlPlane.failure(error, attempting: "the clinic cannot be reserved")
        }
    }

    /// The shard serves the clinic from here on, for whoever knows that it exists: nobody yet.
    private func enterShard(_ tenant: TenantID, _ shard: Shard) async throws {
        try await plane.attempt("shard \(shard.id) does not take the clinic") {
            _ = try await plane.shard(reference: shard.reference, .owner).execute(
                [
                    Query(
                        "INSERT INTO hc_tenant (tenant_id, epoch, state) VALUES ($1, 1, 'rw')",
                        [.id(tenant)])
                ], deadline: plane.deadline)
        }
    }

    /// The commit point: every process learns of the clinic through the directory's feed.
    private func open(_ request: Request, tenant: TenantID, shard: Shard) async throws {
        try await plane.attempt("the clinic cannot be opened") {
            try await plane.control().transaction(deadline: plane.deadline) { transaction in
                // In the order in which whoever takes it away locks them.
                let results = try await transaction.execute([
                    Query(
                        """
                        UPDATE tenant SET state = 'active', version = version + 1, updated_at = now()
                        WHERE id = $1 AND state = 'provisioning'
                        """, [.id(tenant)]),
                    Query(
                        "SELECT placement_swap($1, 1, 'opening', $2, 'serving')",
                        [.id(tenant), .text(shard.id)]),
                ])
                guard results[0].affectedRows == 1, try results[1].single().intIfPresent(0) == 1
                else {
                    throw ControlError(
                        .conflict, code: "placement-changed",
                        "another command has taken the clinic away while it was being made",
                        remedy: "See 'hc-admin tenant show \(request.slug)'.")
                }
                _ = try await transaction.execute(final: [
                    plane.audit("tenant.open", subject: request.slug.text)
                ])
            }
        }
    }

    // MARK: Undo

    private func undo(
        _ tenant: TenantID, on shard: Shard, slug: Slug, because cause: any Error
    ) async throws {
        do {
            try await TenantEraser(plane: plane).erase(
                tenant, slug: slug.text, reason: "create failed", madeOn: shard)
        } catch {
            throw ControlError(
                .failed, code: "create-not-undone",
                "the clinic was not created (\(cause)) and its remains could not be removed",
                remedy: "Nobody can reach them. Give the same command again once this is mended.",
                cause: error)
        }
    }

    /// What a killed command left behind.
    private func removeRemains(of slug: Slug) async throws {
        let eraser = TenantEraser(plane: plane)
        guard let remains = try await eraser.remains(of: slug.text) else { return }
        plane.progress("removing the remains of an interrupted create of '\(slug)'")
        try FaultPoint.reach("provision.remains-found")
        guard
            try await eraser.takeAway(remains, slug: slug.text, reason: "interrupted create")
        else {
            throw ControlError(
                .conflict, code: "slug-taken",
                "the clinic '\(slug)' was opened just now by the command that was making it",
                remedy: "See 'hc-admin tenant show \(slug)'.")
        }
    }

    /// - Throws: `ControlError` of kind `conflict` when another process is at the same slug.
    private func lock(_ slug: Slug, on control: PostgresConnection) async throws {
        let isMine = try await plane.attempt("the slug cannot be locked") {
            try await control.execute(
                [Query("SELECT pg_try_advisory_lock(2, hashtext($1))", [.text(slug.text)])],
                deadline: plane.deadline)[0][0].bool(0)
        }
        guard isMine else {
            throw ControlError(
                .conflict, code: "create-running",
                "another command is creating '\(slug)' right now",
                remedy: "Wait for it to end.")
        }
    }

    /// 24 characters of 5 bits each: 120 bits, without letters that look alike (RFC 4648 6 less 0, 1, 8, 9).
    private static func makePassword() -> String {
        let alphabet = Array("abcdefghijkmnpqrstuvwxyz23456789")
        let random = SystemRandom()
        var text = ""
        for position in 0..<24 {
            if position > 0, position % 6 == 0 { text += "-" }
            text.append(alphabet[Int(random.next() % 32)])
        }
        return text
    }

    /// One `@` with something before it and a dotted name after it, no blanks: the rest only a mail can prove.
    private static func isEmailAddress(_ text: String) -> Bool {
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, parts[1].count >= 3, text.utf8.count <= 254,
            parts[1].contains("."), !parts[1].hasPrefix("."), !parts[1].hasSuffix(".")
        else { return false }
        return text.unicodeScalars.allSatisfy { $0.isASCII && $0.value > 0x20 && $0.value != 0x7F }
    }
}
