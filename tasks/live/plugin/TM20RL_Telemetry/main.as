// Sends where the car is to one program on this computer, and saves a ghost when asked to.
//
// Telemetry: TCP server on 127.0.0.1:9000. In each rendered frame in which a car is on a track, the connected program
// gets one record of 11 little-endian float32 (44 bytes) in a single write; otherwise nothing is sent:
//   speed [m/s], distance [m], x, y, z [m], steer, gas, is braking, finish screen shows, gear, engine speed [rpm].
// With the setting "Heading and velocity" (F3, Settings) it is 14 float32 (56 bytes), with three more at the end:
//   velocity along x and z [m/s], heading [rad], 0 along z and growing towards x.
// The program then needs task.live.record=floats14.
// Ghost: TCP server on 127.0.0.1:10000. A connection is the request; no byte goes either way.
//
// Written for Openplanet for Trackmania (2020) from its documentation and from public plugins. It has not been compiled
// or run by its authors. Being unsigned, it needs Openplanet's signature mode "Developer".

const string HOST = "127.0.0.1";
const uint16 TELEMETRY_PORT = 9000;
const uint16 GHOST_PORT = 10000;
const uint64 RETRY_MS = 1000;

[Setting name="Heading and velocity" description="Sends 14 numbers, for task.live.record=floats14"]
bool Setting_SendsMotion = false;

Net::Socket@ g_telemetryServer;
Net::Socket@ g_ghostServer;
Net::Socket@ g_client;

void Main()
{
    startnew(ServeGhosts);
    ServeTelemetry();
}

// The ports are free again when the plugin is reloaded.
void OnDestroyed()
{
    DropClient();
    if (g_telemetryServer !is null) g_telemetryServer.Close();
    if (g_ghostServer !is null) g_ghostServer.Close();
}

void ServeTelemetry()
{
    @g_telemetryServer = ListenOn(TELEMETRY_PORT);
    MemoryBuffer@ record = MemoryBuffer(0);
    while (true)
    {
        // One program at a time; the next one waits in the queue of the socket, which stays open.
        if (g_client is null && g_telemetryServer.CanRead())
        {
            @g_client = g_telemetryServer.Accept();
            @record = MemoryBuffer(0);
            if (g_client !is null) print("telemetry: a program has connected");
        }
        if (g_client !is null)
        {
            if (g_client.IsHungUp()) DropClient();
            else if (g_client.CanWrite() && FillRecord(record) && !g_client.Write(record)) DropClient();
        }
        yield();
    }
}

void DropClient()
{
    if (g_client is null) return;
    print("telemetry: the program has left");
    g_client.Close();
    @g_client = null;
}

Net::Socket@ ListenOn(uint16 port)
{
    while (true)
    {
        Net::Socket@ server = Net::Socket();
        if (server.Listen(HOST, port)) return server;
        warn("cannot listen on " + HOST + ":" + port + ": is another plugin, such as TMRL's, using it?");
        server.Close();
        sleep(RETRY_MS);
    }
    return null;
}

// Null in menus, while loading and while watching.
CSmScriptPlayer@ DrivingPlayer(CSmArenaClient@ playground)
{
    if (playground is null || playground.GameTerminals.Length == 0) return null;
    CSmPlayer@ player = cast<CSmPlayer>(playground.GameTerminals[0].ControlledPlayer);
    if (player is null) return null;
    return cast<CSmScriptPlayer>(player.ScriptAPI);
}

CSmArenaClient@ CurrentPlayground()
{
    CTrackMania@ app = cast<CTrackMania>(GetApp());
    if (app is null) return null;
    return cast<CSmArenaClient>(app.CurrentPlayground);
}

// False when there is no car; then the record is not to be sent.
bool FillRecord(MemoryBuffer@ record)
{
    CSmArenaClient@ playground = CurrentPlayground();
    CSmScriptPlayer@ player = DrivingPlayer(playground);
    if (player is null) return false;
    bool hasFinished = playground.GameTerminals[0].UISequence_Current == SGamePlaygroundUIConfig::EUISequence::Finish;

    record.Seek(0, 0);
    record.Write(float(player.Speed));
    record.Write(float(player.Distance));
    record.Write(float(player.Position.x));
    record.Write(float(player.Position.y));
    record.Write(float(player.Position.z));
    record.Write(float(player.InputSteer));
    record.Write(float(player.InputGasPedal));
    record.Write(player.InputIsBraking ? 1.0f : 0.0f);
    record.Write(hasFinished ? 1.0f : 0.0f);
    record.Write(float(player.EngineCurGear));
    record.Write(float(player.EngineRpm));
    if (Setting_SendsMotion)
    {
        record.Write(float(player.Velocity.x));
        record.Write(float(player.Velocity.z));
        record.Write(float(Math::Atan2(player.AimDirection.x, player.AimDirection.z)));
    }
    // A write to a socket starts at the cursor.
    record.Seek(0, 0);
    return true;
}

void ServeGhosts()
{
    @g_ghostServer = ListenOn(GHOST_PORT);
    while (true)
    {
        if (g_ghostServer.CanRead())
        {
            Net::Socket@ request = g_ghostServer.Accept();
            if (request !is null)
            {
                request.Close();
                SaveGhost();
            }
        }
        yield();
    }
}

// Into the folder TM20RL of the game's replays.
void SaveGhost()
{
    CTrackMania@ app = cast<CTrackMania>(GetApp());
    CSmArenaRulesMode@ rules = cast<CSmArenaRulesMode>(app.PlaygroundScript);
    CSmScriptPlayer@ player = DrivingPlayer(CurrentPlayground());
    if (rules is null || app.RootMap is null || player is null)
    {
        warn("no ghost saved: no car is on a map of this computer");
        return;
    }
    CGameGhostScript@ ghost = rules.Ghost_RetrieveFromPlayer(player);
    if (ghost is null)
    {
        warn("no ghost saved: the game has none of this run");
        return;
    }
    string path = "TM20RL/" + app.RootMap.MapInfo.MapUid + "_" + ghost.Result.Time + "_" + Time::Stamp + ".Replay.Gbx";
    CWebServicesTaskResult@ task = rules.DataFileMgr.Replay_Save(path, app.RootMap, ghost);
    while (task !is null && task.IsProcessing) yield();
    if (task !is null && task.HasSucceeded) print("ghost saved: " + path);
    else warn("no ghost saved: the game could not write " + path);
    rules.DataFileMgr.Ghost_Release(ghost.Id);
}
